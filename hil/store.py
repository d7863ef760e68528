"""Measurements, kept for good: append-only, durable when `add` returns, safe against kill -9.

SQLite by default (WAL, synchronous=FULL); another database by its SQLAlchemy URL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hil.errors import UsageError
from hil.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine, Table

SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 30_000
FIND_AT_ONCE = 500  # SQLite limits the variables of a statement


class Store:
    """Use as a context manager, or call `close`. Several processes may share one file."""

    def __init__(self, path_or_url: str | Path) -> None:
        """Makes the file where there is none. Raises UsageError for a corrupt or foreign one."""
        from sqlalchemy import Column, Integer, MetaData, String, Table, Text

        self._where = str(path_or_url)
        metadata = MetaData()
        self._versions = Table("hilnas_schema", metadata, Column("version", Integer, nullable=False))
        self._measurements: Table = Table(
            "measurements",
            metadata,
            Column("number", Integer, primary_key=True, autoincrement=True),
            Column("job_id", String(64), nullable=False, unique=True),
            Column("model_sha256", String(64), nullable=False, index=True),
            Column("status", String(16), nullable=False),
            Column("record", Text, nullable=False),
        )
        self._engine = _engine(self._where)
        try:
            self._prepare(metadata)
        except BaseException:
            self.close()
            raise

    def add(self, measurement: Measurement) -> bool:
        """Durable when it returns. False when that job is there already: what is there stays."""
        from sqlalchemy.exc import IntegrityError

        row = {
            "job_id": measurement.job_id,
            "model_sha256": measurement.model_sha256,
            "status": measurement.status,
            "record": json.dumps(measurement.to_json(), sort_keys=True),
        }
        try:
            with self._transaction() as connection:
                connection.execute(self._measurements.insert().values(row))
        except IntegrityError:
            return False
        return True

    def find(self, job_ids: Iterable[str]) -> dict[str, Measurement]:
        """Those of the jobs that are there, by job id."""
        wanted, found = list(job_ids), {}
        table = self._measurements.c
        with self._transaction() as connection:
            for start in range(0, len(wanted), FIND_AT_ONCE):
                part = wanted[start : start + FIND_AT_ONCE]
                query = self._measurements.select().where(table.job_id.in_(part))
                found.update({row.job_id: self._read(row.record) for row in connection.execute(query)})
        return found

    def all(self) -> list[Measurement]:
        """In the order in which they were added."""
        query = self._measurements.select().order_by(self._measurements.c.number)
        with self._transaction() as connection:
            return [self._read(row.record) for row in connection.execute(query)]

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, metadata: Any) -> None:
        from sqlalchemy import inspect

        with self._transaction() as connection:
            present = set(inspect(connection).get_table_names())
            if present and self._versions.name not in present:
                raise UsageError(f"{self._where}: a database of something else ({min(present)}): name another file")
            metadata.create_all(connection)
            versions = [row.version for row in connection.execute(self._versions.select())]
            if not versions:
                connection.execute(self._versions.insert().values(version=SCHEMA_VERSION))
            elif versions != [SCHEMA_VERSION]:
                raise UsageError(
                    f"{self._where}: written with schema {versions}, this hilnas reads {SCHEMA_VERSION}: "
                    "use the version of hilnas that wrote it, or a new store"
                )

    def _read(self, record: str) -> Measurement:
        try:
            return Measurement.from_json(json.loads(record))
        except (UsageError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{self._where}: holds a damaged record ({error}): restore it from a copy") from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        from sqlalchemy.exc import DatabaseError, IntegrityError

        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DatabaseError as error:
            raise UsageError(
                f"{self._where}: not a usable store ({error.orig}): name another file, or restore it"
            ) from error


def _engine(where: str) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    if "://" not in where:
        folder = Path(where).resolve().parent
        if not folder.is_dir():
            raise UsageError(f"{where}: no folder {folder}: make it, or name another store")
    try:
        engine = create_engine(where if "://" in where else f"sqlite:///{Path(where).resolve()}")
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise UsageError(f"{where}: no such kind of database here: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _durable)
        event.listen(engine, "begin", _lock_early)
    return engine


def _durable(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: see _lock_early
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _lock_early(connection: Connection) -> None:
    """Read first and write later fails at once, instead of waiting, beside another writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
