"""configuration.md, spaces.md, boards.md: every key of a TOML file, from the dataclasses that it becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deploy.run.config import Experiment
from hil.boards.config import BoardConfig
from nas.space import SearchSpace
from reference.docstrings import attributes, classes, summary
from reference.markdown import code, plain, table

CONFIGURATION = """# Configuration

Every key of a configuration (`--config FILE`), generated from the classes that read it. `--set search.measured=8`
changes one key for one run. An unknown key is an error that names the near miss.
"""
SPACES = """# Spaces

Every key of a space's file (`space = "NAME"` of a configuration), generated from the class that reads it.
[Your own space](../own-space.md) explains them by example.
"""
BOARDS = """# boards.toml

Every key of a board's table, generated from the class that reads it. [Boards](../boards.md) explains them by example.
"""
HEADS = ("key", "value", "default", "meaning")


def configuration() -> str:
    return "\n".join([CONFIGURATION, *_sections(Experiment)])


def spaces() -> str:
    return "\n".join([SPACES, *_sections(SearchSpace)])


def boards() -> str:
    return "\n".join([BOARDS, *table(HEADS, _rows(BoardConfig, {}, left_out=("name",)))])


def _sections(top: type) -> Iterator[str]:
    """The file's own keys, then each of its tables."""
    places = dict(tables(top))
    yield from ("## The file itself", "", *table(HEADS, _rows(top, places)))
    for cls, name in places.items():
        yield from (f"## {name}", "", plain(summary(cls)), "", *table(HEADS, _rows(cls, places)))


def tables(cls: type, within: str = "") -> Iterator[tuple[type, str]]:
    """The classes below a class, each with the first table that it becomes: `[teacher.schedule]`, `[[budgets]]`."""
    seen: set[type] = set()
    for field, hint in _fields(cls):
        name = f"{within}.{field.name}" if within else field.name
        for part in classes(hint):
            for found, place in (
                (part, f"[[{name}]]" if get_origin(hint) is tuple else f"[{name}]"),
                *tables(part, name),
            ):
                if found not in seen:
                    seen.add(found)
                    yield found, place


def _rows(cls: type, places: Mapping[type, str], left_out: Sequence[str] = ()) -> Iterator[Sequence[str]]:
    meanings = attributes(cls)
    for field, hint in _fields(cls):
        if field.name not in left_out:
            parts = list(classes(hint))
            value = " or ".join(dict.fromkeys(_link(places[part]) for part in parts)) or plain(written(hint))
            meaning = meanings.get(field.name) or " ".join(summary(part).partition("\n")[0] for part in parts)
            yield code(field.name), value, _default(field), plain(meaning)


def _link(heading: str) -> str:
    return f"[{code(heading)}](#{re.sub(r'[^a-z_]', '', heading)})"


def _fields(cls: type) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(cls)
    return ((field, hints[field.name]) for field in fields(cls))


def written(hint: Any) -> str:
    """The values that an annotation allows, as TOML has them."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(code(_toml(part)) for part in parts)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(written(part) for part in parts if part is not NoneType)
    if get_origin(hint) is tuple and Ellipsis in parts:
        return f"list of {written(parts[0])}"
    if get_origin(hint) is tuple:
        return f"list: {', '.join(map(written, parts))}"
    if get_origin(hint) is dict:
        return "table of texts"
    return {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}[hint]


def _default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "required" if field.default_factory is MISSING else "empty"
    if field.default is None or field.default in ("", ()):
        return "none" if field.default is None else "empty"
    return "its defaults" if is_dataclass(field.default) else code(_toml(field.default))


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
