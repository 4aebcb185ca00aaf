"""`python -m offsim` is the `offsim` command."""

import sys

from offsim.cli import main

if __name__ == "__main__":
    sys.exit(main())
