"""`--set KEY=VALUE`: a setting of a configuration, changed for one run."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from nas.errors import ConfigError

KEY = re.compile(r"[a-z_]+(\.[a-z_]+)*")
WORD = re.compile(r"[A-Za-z_][\w.:/-]*")


def assigned(settings: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """The tables of a TOML file with `retrain.steps=200`, `search.estimate=weighted`, `data.crop=[144, 192]` in them.

    A value is TOML, or a word; without one the setting is left out, so that its default holds. `ConfigError` for
    anything else; whether there is such a setting is asked where the tables are read.
    """
    changed = copy.deepcopy(dict(settings))
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not KEY.fullmatch(key):
            raise ConfigError(f"--set {text}: write KEY=VALUE, for example retrain.steps=200")
        *sections, name = key.split(".")
        table = changed
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {text}: '{section}' is no table of the configuration")
        if value.strip():
            table[name] = _value(value.strip(), text)
        else:
            table.pop(name, None)
    return changed


def _value(value: str, text: str) -> Any:
    if WORD.fullmatch(value) and value not in ("true", "false", "inf", "nan"):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--set {text}: the value is neither a word nor TOML: {error}") from None
