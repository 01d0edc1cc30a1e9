"""CL2 as a program on this machine: an executable, or an image in docker."""
