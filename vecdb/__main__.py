"""`python -m vecdb`: the same as the command `vecdb`."""

import sys

from vecdb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
