"""Checks of JSON that comes from a board: a board, or somebody in between, may send anything at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hil.errors import BoardError

Check = Callable[[Any], bool]


def whole(most: int) -> Check:
    """A whole number from 0 to `most`."""
    return lambda value: type(value) is int and 0 <= value <= most


def counted(most: int) -> Check:
    """A whole number from 1 to `most`."""
    return lambda value: type(value) is int and 1 <= value <= most


def number(least: float, most: float) -> Check:
    # NaN is in no interval
    return lambda value: type(value) in (int, float) and least <= value <= most


def optional(check: Check) -> Check:
    """null, or what `check` accepts."""
    return lambda value: value is None or check(value)


def record(**checks: Check) -> Check:
    """An object with exactly these fields."""
    return lambda value: (
        isinstance(value, Mapping)
        and set(value) == set(checks)
        and all(check(value[name]) for name, check in checks.items())
    )


def list_of(check: Check, least: int = 0) -> Check:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(check, value))


def values_of(check: Check) -> Check:
    """An object with any names, whose values `check` accepts."""
    return lambda value: isinstance(value, Mapping) and all(map(check, value.values()))


def text(value: Any) -> bool:
    return isinstance(value, str)


def truth(value: Any) -> bool:
    return isinstance(value, bool)


def json_object(line: str, who: str) -> dict[str, Any]:
    """Raises BoardError for a line that is no JSON object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BoardError(f"{who} is {line[:200]!r}, not JSON: what on the board prints into it?") from error
    if not isinstance(found, dict):
        raise BoardError(f"{who} is {line[:200]!r}, not a JSON object")
    return found


def require(raw: Mapping[str, Any], checks: Mapping[str, Check], who: str) -> None:
    """Raises BoardError naming the first field that is missing, wrong or unknown."""
    for name in checks:
        if name not in raw:
            raise malformed(who, name, "is missing")
    for name, check in checks.items():
        if not check(raw[name]):
            raise malformed(who, name, f"is {str(raw[name])[:100]!r}")
    for name in raw:
        if name not in checks:
            raise malformed(who, name[:100], "is unknown")


def malformed(who: str, name: str, problem: str) -> BoardError:
    return BoardError(
        f"{who} is malformed: {name} {problem}: it was changed, or another version of hilnas wrote it; "
        "clean the board's workdir and measure again"
    )
