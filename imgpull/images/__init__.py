"""Container images of a stated shape, made here and put into a registry."""
