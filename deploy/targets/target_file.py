"""A target as the text of its file: what `load_target` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from deploy.targets.placement import Target

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TABLES = ("rules", "notes")
NOT_WRITTEN = ("name",)  # the file has it


def text_of(target: Target, comments: Iterable[str] = ()) -> str:
    """TOML with `comments` before it; keys that have their default are left out."""
    lines = [*map(_comment, comments), *_keys(target)]
    for name in TABLES:
        for entry in getattr(target, name):
            lines += ["", f"[[{name}]]", *_keys(entry)]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in f"# {' '.join(text.split())}").rstrip()


def _keys(record: DataclassInstance) -> Iterator[str]:
    for field in fields(record):
        value = getattr(record, field.name)
        default = None if field.default is MISSING else field.default
        if field.name not in (*TABLES, *NOT_WRITTEN) and value != default:
            yield f"{field.name} = {_value(value)}"


def _value(value: object) -> str:
    """JSON's texts, numbers and lists are TOML's too, apart from DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
