"""Strict settings: a mapping read from TOML becomes a frozen dataclass, or one clear error.

An unknown key is an error that names the near miss; so is a wrong type or a missing key.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from nas.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

STRICT = {"extra": "forbid"}
"""Put `__pydantic_config__ = STRICT` into a settings dataclass (pydantic reads it)."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; `ConfigError` if it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give one that exists") from None
    except (ValueError, RecursionError, OSError) as error:  # tomllib raises more than its own where numbers are huge
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None


def build(cls: type[T], settings: Mapping[str, Any], where: str) -> T:
    """A `cls` (frozen dataclass, nested ones too) from `settings`; `where` names the file in errors."""
    from pydantic import ValidationError

    kind: type = cls  # of which mypy knows that it can be hashed
    try:
        built: T = _adapter(kind).validate_python(dict(settings))
        return built
    except ValidationError as error:
        faults = [(*_place(cls, e["loc"]), e) for e in error.errors(include_url=False)]
        foreign = [f for f in faults if f[2]["type"] in ("extra_forbidden", "unexpected_keyword_argument")]
        unknown = [f for f in foreign if f[0][-1] not in _known(f[1])]
        # A misspelt required key is also a missing one: name what was written. And where a setting may be of several
        # classes, a key of the one that was meant is foreign to the others.
        keys, owners, first = (unknown or [f for f in faults if f not in foreign] or faults)[0]
        if first in [f[2] for f in foreign]:
            raise ConfigError(
                f"{where}: unknown key '{'.'.join(keys)}'{_near_miss(keys[-1], _known(owners))}"
            ) from None
        raise ConfigError(f"{where}: '{'.'.join(keys)}': {first['msg']}") from None


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    """Made once: making one takes far longer than using it."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _place(cls: Any, location: tuple[int | str, ...]) -> tuple[list[str], list[Any]]:
    """The keys as written in the file, and the settings classes that the last one may belong to."""
    keys: list[str] = []
    owners, below = [cls], [cls]
    for part in location:
        if len(below) > 1 and part in [candidate.__name__ for candidate in below]:
            continue  # pydantic's name for the class that it tried
        keys.append(str(part))
        if isinstance(part, str):
            hints = [get_type_hints(owner).get(part) for owner in below]
            owners, below = below, [c for hint in hints for c in (hint, *get_args(hint)) if is_dataclass(c)]
    return keys, owners


def _known(owners: Sequence[Any]) -> list[str]:
    return [field.name for owner in owners for field in fields(owner)]


def _near_miss(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known keys: {', '.join(known)}" if known else ""
