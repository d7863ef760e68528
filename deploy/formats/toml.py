"""Settings as TOML: what tomllib reads back as the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(settings: Mapping[str, Any]) -> str:
    """A document of plain data, without its None, which TOML has not. A mapping is a section, one within it inline."""
    plain = {name: value for name, value in settings.items() if value is not None}
    sections = {name: value for name, value in plain.items() if isinstance(value, Mapping)}
    lines = [f"{_key(name)} = {_value(value)}" for name, value in plain.items() if name not in sections]
    for name, section in sections.items():
        lines += ["", f"[{_key(name)}]"]
        lines += [f"{_key(key)} = {_value(value)}" for key, value in section.items() if value is not None]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    """As JSON has it, which escapes all but one of the characters that TOML escapes."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        kept = (f"{_key(str(key))} = {_value(entry)}" for key, entry in value.items() if entry is not None)
        return "{ " + ", ".join(kept) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    raise TypeError(f"{type(value).__name__} {value!r} is no plain data: TOML does not hold it")
