"""`python -m smai_lib` is the command `smai`."""

from .cli import main

main()
