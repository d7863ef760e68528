"""What a stage leaves for others: a frozen dataclass with one file, read strictly.

The names on disk are the fields' names unless a class says otherwise (`renamed`). A field whose metadata
is `OMITTED` is left out of the file while it is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from deploy.formats.files import read_json, write_json
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.settings import STRICT, build

R = TypeVar("R", bound="Record")
VERSION = "schema_version"


def renamed(**names: str) -> dict[str, Any]:
    """A strict `__pydantic_config__` in which fields have other names on disk: `renamed(prior_std="spreads")`."""
    return STRICT | {"alias_generator": lambda name: names.get(name, name)}


OMITTED: Mapping[str, bool] = MappingProxyType({"omitted": True})
"""`metadata` of a field that is left out of the file while it is None or empty."""


def plain(value: Any) -> Any:
    """A record, or a part of one, as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        custom = getattr(value, "to_json", None)
        return custom() if custom is not None and not isinstance(value, Record) else plain_fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def plain_fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields by their names on disk."""
    config: Mapping[str, Any] = getattr(type(value), "__pydantic_config__", {})
    name_of = config.get("alias_generator", str)
    kept = [f for f in fields(value) if not (f.metadata.get("omitted") and _empty(getattr(value, f.name)))]
    return {name_of(f.name): plain(getattr(value, f.name)) for f in kept}


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, Sized) and not len(value))


@dataclass(frozen=True)
class Record:
    """One file of a run's folder.

    `FILE` is its name there, `COMMAND` what makes it anew, `SCHEMA` the version of its fields, which the file holds
    as `schema_version`.
    """

    FILE: ClassVar[str]
    COMMAND: ClassVar[str]
    SCHEMA: ClassVar[int] = 1
    __pydantic_config__ = STRICT

    @classmethod
    def read(cls: type[R], path: Path) -> R:
        """`UsageError` for a file that is missing, of another schema version, or has an unknown or missing field."""
        return cls.from_json(read_json(path), str(path))

    def write(self, path: Path) -> None:
        write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {VERSION: self.SCHEMA, **plain_fields(self)}

    @classmethod
    def from_json(cls: type[R], raw: Mapping[str, Any], where: str) -> R:
        """`where` names the file in errors."""
        advice = f"delete it and run `hilnas {cls.COMMAND}` again"
        version = raw.get(VERSION)
        if version != cls.SCHEMA:
            found = "no schema version" if version is None else f"schema version {version}"
            raise UsageError(f"{where}: {found}, this hilnas reads version {cls.SCHEMA}; {advice}")
        try:
            return build(cls, cls.arranged({k: v for k, v in raw.items() if k != VERSION}), where)
        except (ConfigError, UsageError) as error:
            named = str(error) if str(error).startswith(where) else f"{where}: {error}"
            raise UsageError(f"{named}; {advice}") from None

    @classmethod
    def arranged(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """The constructor's arguments from the file's; a class whose file is arranged otherwise overrides it."""
        return raw
