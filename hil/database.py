"""A store's database: a SQLite file, or PostgreSQL by its SQLAlchemy URL. No message shows a password."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from hil.errors import UsageError

BUSY_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_S = 10
_PASSWORD = re.compile(r"(://[^:/@]*:)(.*)@")
_PASSWORD_OPTION = re.compile(r"(password=)[^&]*", re.IGNORECASE)


def is_url(where: str | Path) -> bool:
    return "://" in str(where)


def shown(where: str | Path) -> str:
    """For messages: a URL's password is `***`."""
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***@", str(where))) if is_url(where) else str(where)


class Database:
    """Connections to one store's database.

    Attributes:
        shown: its path or URL, for messages.
        engine: SQLAlchemy's.
    """

    shown: str
    engine: Engine

    def __init__(self, where: str | Path, *, create: bool) -> None:
        """Raises UsageError for a URL of no known kind, a missing folder, and without `create` a missing file."""
        self.shown = shown(where)
        url = self._url(str(where))
        if url.get_backend_name() == "sqlite":
            self.engine = create_engine(self._file(url, create))
            event.listen(self.engine, "connect", _durable_sqlite)
            event.listen(self.engine, "begin", _lock_early)
        else:
            patience = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_TIMEOUT_S}
            try:
                # a server may restart during a night: a connection is tried before it is used
                self.engine = create_engine(url, pool_pre_ping=True, connect_args=patience)
            except ImportError as error:
                raise UsageError(
                    f"{self.shown}: PostgreSQL's driver is missing ({error}): `pip install 'hilnas[postgres]'`"
                ) from error
            event.listen(self.engine, "connect", _durable_postgresql)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Raises UsageError for any error of the database, except IntegrityError, which passes."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            # no cause: SQLAlchemy's error holds the statement's parameters
            raise UsageError(
                f"{self.shown}: not a usable store ({error.orig}): name another one, or restore it"
            ) from None

    def close(self) -> None:
        self.engine.dispose()

    def _url(self, where: str) -> URL:
        if not is_url(where):
            return URL.create("sqlite", database=str(Path(where).resolve()))
        password = _PASSWORD.search(where)
        if password and "@" in password[2]:
            raise UsageError(
                f"{self.shown}: an @ within user or password is written %40; "
                "better, leave the password out: PostgreSQL takes it from ~/.pgpass or PGPASSWORD"
            )
        try:
            url = make_url(where)
            if url.get_backend_name() in ("sqlite", "postgresql") and url.get_dialect():
                return url
        except (ArgumentError, NoSuchModuleError, ValueError):
            pass
        raise UsageError(
            f"{self.shown}: no such kind of database here: give a file's path, or postgresql+psycopg://USER@HOST/DATABASE"
        )

    def _file(self, url: URL, create: bool) -> URL:
        path = Path(url.database or "").resolve()
        if not url.database or not path.parent.is_dir():
            raise UsageError(f"{self.shown}: no folder {path.parent}: make it, or name another store")
        if not create and not path.is_file():
            raise UsageError(f"{self.shown}: no store there; `hilnas profile` and `hilnas loop` make one")
        return url


def _durable_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we send BEGIN: see _lock_early
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_wal(connection, time.monotonic() + BUSY_TIMEOUT_MS / 1000)
    connection.execute("PRAGMA synchronous=FULL")


def _use_wal(connection: Any, deadline: float) -> None:
    """SQLite ignores busy_timeout while two connections change the journal's mode at once."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.02)


def _lock_early(connection: Connection) -> None:
    """Read first and write later fails at once, instead of waiting, beside another writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _durable_postgresql(connection: Any, _record: Any) -> None:
    """A server may be configured to confirm a commit before it is on disk; not for us. Stricter settings stay."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()
