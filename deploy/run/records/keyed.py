"""Records outside the stages' bookkeeping, which hold the key of what they were made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deploy.formats.files import read_json
from deploy.run.records.base import VERSION, Record

K = TypeVar("K", bound="KeyedRecord")


@dataclass(frozen=True)
class KeyedRecord(Record):
    """A record that another `key` makes anew."""

    key: str

    @classmethod
    def current(cls: type[K], folder: Path, key: str) -> K | None:
        """The record if it was made under `key`; None without one, and for one of another schema version.

        Raises `UsageError` for one that is damaged.
        """
        path = folder / cls.FILE
        if not path.exists() or read_json(path).get(VERSION) != cls.SCHEMA:
            return None
        record = cls.read(path)
        return record if record.key == key else None
