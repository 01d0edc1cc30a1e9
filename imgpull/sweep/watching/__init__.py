"""How a sweep stands, for who watches it run or asks from another shell."""
