"""What a sweep will take, cost and be able to show, before it runs."""
