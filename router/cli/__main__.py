"""`python -m router.cli` is `callme`."""

from router.cli import main

main()
