"""A journal: one JSON object per line, appended as results come in, readable after a kill or a power cut.

    done = Journal(path, Scored, key)
    scores = {scored.subnet: scored.score for scored in done.read()}
    done.append(Scored("b1_k3e3_w8", 0.93))  # on disk when this returns

A journal has one writer at a time; whoever opens it holds the lock of its folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

from deploy.formats.files import write_atomically
from hil.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)
else:
    R = TypeVar("R")


@dataclass(eq=False)
class ForeignJournalError(UsageError):
    """A journal that begins with another header than its reader's.

    Attributes:
        path: of the journal.
        header: what it begins with; None if that is no JSON object.
    """

    path: Path
    header: dict[str, Any] | None

    def __str__(self) -> str:
        return f"{self.path}: not the journal of these settings; delete it or write elsewhere"


@dataclass(frozen=True)
class Journal(Generic[R]):
    """The records of one file, in the order in which they were appended.

    Attributes:
        path: of the file; its folder is created with the first record.
        record: a dataclass; each line holds the fields of one.
        key: a digest of the settings that the records depend on, stored with each as `key`. Records with another key
            stay in the file and are ignored. Empty: the records have no key.
        header: the first line, where a file of other settings is an error and not ignored. None: no such line.
    """

    path: Path
    record: type[R]
    key: str = ""
    header: Mapping[str, object] | None = None

    def read(self) -> list[R]:
        """Every whole record. Lines that are cut short, damaged, or of another key are left out.

        Raises `ForeignJournalError` if the file begins with another header.
        """
        from pydantic import TypeAdapter, ValidationError

        adapter, names, records = TypeAdapter(self.record), {field.name for field in fields(self.record)}, []
        for line in self._lines():
            with suppress(ValidationError, ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and found.pop("key", "") == self.key and found.keys() <= names:
                    records.append(adapter.validate_python(found))
        return records

    @classmethod
    def latest(cls, path: Path, record: type[R]) -> Journal[R]:
        """Of the key that the file's last whole line has."""
        lines, key = _whole(path.read_bytes() if path.exists() else b"").splitlines(), ""
        with suppress(ValueError, AttributeError):
            key = str(json.loads(lines[-1]).get("key", "")) if lines else ""
        return cls(path, record, key)

    def append(self, *records: R) -> None:
        """Add records, all in one write; they are on disk when this returns. A cut last line is removed first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("ab+") as file:
                size = _whole_size(file)
                if size < file.tell():
                    file.truncate(size)
                file.write((b"" if size else self._header_line()) + b"".join(map(self._line, records)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or str(self.path)  # a full disk does not say where
            raise

    def rewrite(self, records: Iterable[R]) -> None:
        """Make the file the header and these records, atomically; one that is so already is not touched."""
        content = self._header_line() + b"".join(map(self._line, records))
        if not (self.path.exists() and self.path.read_bytes() == content):
            write_atomically(self.path, content)

    def _lines(self) -> list[bytes]:
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = _whole(content).splitlines()
        if self.header is None:
            return lines
        if self._header_line().startswith(content):  # a new file, or one whose first write was cut short
            return []
        found = None
        with suppress(ValueError):
            found = json.loads((lines or [content])[0])
        if not lines or found != json.loads(self._header_line()):
            raise ForeignJournalError(self.path, found if isinstance(found, dict) else None)
        return lines[1:]

    def _header_line(self) -> bytes:
        return b"" if self.header is None else _line(self.header)

    def _line(self, record: R) -> bytes:
        return _line({"key": self.key, **asdict(record)} if self.key else asdict(record))


def _line(entry: Mapping[str, object]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _whole_size(file: BinaryIO) -> int:
    """The length without a last line that lacks its end; leaves the file at its end."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            return len(_whole(file.read()))
    return size


def _whole(content: bytes) -> bytes:
    """Without a last line that lacks its end."""
    return content[: content.rfind(b"\n") + 1]
