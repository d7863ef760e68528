"""A setting that may be of several classes: errors are about the one that was meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from nas.errors import ConfigError
from nas.settings import STRICT, build


@dataclass(frozen=True)
class Round:
    radius: float = 1.0
    rings: int = 0
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Square:
    side: int = 1
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Figures:
    figure: Round | Square
    others: tuple[Square, ...] = ()
    __pydantic_config__ = STRICT


@pytest.mark.parametrize(("figure", "expected"), [({"radius": 2}, Round(2.0)), ({"side": 3}, Square(3))])
def test_the_keys_choose_the_class(figure: dict[str, Any], expected: Round | Square) -> None:
    assert build(Figures, {"figure": figure}, "f.toml").figure == expected


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"figure": {"radios": 2}}, "unknown key 'figure.radios'; did you mean 'radius'?"),
        ({"figure": {"sides": 2}}, "unknown key 'figure.sides'; did you mean 'side'?"),
        ({"figure": {"wheels": 2}}, "unknown key 'figure.wheels'; known keys: radius, rings, side"),
        ({"figure": {"side": "x"}}, "'figure.side': Input should be a valid integer"),
        ({"figure": {"radius": "x", "rings": 1}}, "'figure.radius': Input should be a valid number"),
        ({"figure": {"radius": 1, "side": 1}}, "unknown key 'figure.side'"),
        ({"figure": 5}, "'figure': "),
        ({}, "'figure': "),
        ({"figure": {"side": 1}, "others": [{}, {"sides": 1}]}, "'others.1.sides'; did you mean 'side'?"),
        ({"figure": {"side": 1}, "other": []}, "unknown key 'other'; did you mean 'others'?"),
    ],
)
def test_an_error_names_the_key_as_written(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Figures, settings, "f.toml")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert "Round" not in str(caught.value).split("Input")[0]
