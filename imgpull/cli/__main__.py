"""python -m imgpull.cli …: the same as imgpull …"""

from imgpull.cli import main

if __name__ == "__main__":
    main()
