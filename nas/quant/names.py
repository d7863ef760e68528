"""Names for tensors that a network is given in passing."""

from __future__ import annotations

from collections.abc import Container


def unused(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or with a number after it where it is taken."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}/{number}", number + 1
    return name
