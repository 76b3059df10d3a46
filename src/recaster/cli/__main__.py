"""`python -m recaster.cli`: the command, also where a console script cannot run."""

import sys

from recaster.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
