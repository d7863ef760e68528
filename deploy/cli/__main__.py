"""`python -m deploy.cli`: the command line where the script `hilnas` is not on the path."""

from __future__ import annotations

import sys

from deploy.cli import main

sys.exit(main())
