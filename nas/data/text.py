"""Text files as other systems write them: with a byte-order mark, in UTF-16, with other line ends."""

from __future__ import annotations

import codecs
from pathlib import Path

from nas.errors import DataError

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Encodings by the mark that a file begins with; without one it is UTF-8."""


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without spaces at their ends.

    Raises:
        DataError: it is no text.
    """
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
        text = content.decode(encoding)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fix its rights or remove it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as text ({error}); write it in UTF-8 or remove it") from None
    if "\0" in text:
        raise DataError(f"{path}: cannot be read as text (it holds zero bytes); write it in UTF-8 or remove it")
    return [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
