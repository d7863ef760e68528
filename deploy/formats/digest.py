"""Digests of settings and of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def canonical_json(value: object) -> str:
    """The one text of plain data: sorted keys, no spaces. `TypeError` for what JSON has not, `ValueError` for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits of the sha256 of plain data (numbers, texts, None, lists and dicts of them).

    Settings enter as `deploy.run.keys.settings_of` gives them. `TypeError` for any other object.
    """
    return hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
