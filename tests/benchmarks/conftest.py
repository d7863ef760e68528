"""The benchmarks borrow the tests' networks and reference path."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("deploy", "hil"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
