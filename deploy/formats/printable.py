"""Text of others that is shown: a program that dies prints anything, a bundle names anything."""

from __future__ import annotations


def printable(text: str) -> str:
    """In one line, without escape codes, and as every terminal and XML take it."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
