"""`python -m deploy.cli`: the command line where the script `hilnas` is not installed."""

import sys

from deploy.cli import main

if __name__ == "__main__":
    sys.exit(main())
