"""`python -m cyclegan_lib` is the command `cyclegan`."""

from cyclegan_lib.cli import main

main()
