"""What a dataclass says of itself: its docstring, the meanings of its fields, the dataclasses within them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args

SECTION = re.compile(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", re.M)
ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", re.M)


def summary(cls: type) -> str:
    """The docstring up to its sections."""
    return SECTION.split(inspect.getdoc(cls) or "")[0].strip()


def attributes(cls: type) -> Mapping[str, str]:
    """Of each field named under `Attributes:`, its own or a base's, what is said there.

    Fields that are explained together have one text: `stem, head: of the network`.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = SECTION.search(f"{inspect.cleandoc(base.__doc__ or '')}\n")
        for names, text in ENTRY.findall(section[1]) if section else ():
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def classes(hint: Any) -> Iterator[type]:
    """The dataclasses that stand in an annotation."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for part in get_args(hint):
        yield from classes(part)
