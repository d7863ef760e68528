"""Strict settings: a mapping read from TOML becomes a frozen dataclass, or one clear error.

An unknown key is an error that names the near miss; so is a wrong type or a missing key.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from nas.errors import ConfigError

T = TypeVar("T")

STRICT = {"extra": "forbid"}
"""Put `__pydantic_config__ = STRICT` into a settings dataclass (pydantic reads it)."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; `ConfigError` if it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run from the repository's root or give --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None


def build(cls: type[T], settings: Mapping[str, Any], where: str) -> T:
    """A `cls` (frozen dataclass, nested ones too) from `settings`; `where` names the file in errors."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(dict(settings))
    except ValidationError as error:
        found = error.errors(include_url=False)
        unknown = [e for e in found if e["type"] in ("extra_forbidden", "unexpected_keyword_argument")]
        first = (unknown or found)[0]  # a misspelt key that is required is also a missing one: name what was written
        place = ".".join(str(part) for part in first["loc"])
        if unknown:
            raise ConfigError(f"{where}: unknown key '{place}'{_near_miss(cls, first['loc'])}") from None
        raise ConfigError(f"{where}: '{place}': {first['msg']}") from None


def _near_miss(cls: Any, location: tuple[int | str, ...]) -> str:
    for part in location[:-1]:
        if isinstance(part, str) and is_dataclass(cls):
            hint = get_type_hints(cls)[part]
            cls = next((arg for arg in getattr(hint, "__args__", ()) if is_dataclass(arg)), hint)
    if not is_dataclass(cls):
        return ""
    known = [field.name for field in fields(cls)]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known keys: {', '.join(known)}"
