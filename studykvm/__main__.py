"""`python -m studykvm` is the `studykvm` command."""

import sys

from studykvm.cli import main

if __name__ == "__main__":
    sys.exit(main())
