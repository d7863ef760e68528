"""Digests of settings and of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits of the parts' text: equal if and only if they are."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
