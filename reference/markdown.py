"""Markdown as the site reads it: tables, and texts that stand in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; the cells are Markdown."""
    return [_row(heads), _row(["---"] * len(heads)), *map(_row, rows), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """A text of the program as one line in which nothing is markup but `code`."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _escaped(text: str) -> str:
    for mark in "\\*_[]<>|":
        text = text.replace(mark, f"&#{ord(mark)};")
    return text


def code(text: str) -> str:
    return f"`{text}`" if text else ""
