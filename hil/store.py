"""All measurements: append-only, durable when `add` returns, safe against kill -9.

A SQLite file by default (WAL, synchronous=FULL), or PostgreSQL by its SQLAlchemy URL. A store of an older version
is brought up to date when it is opened, in one transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from hil.database import Database
from hil.errors import UsageError
from hil.measurement import Measurement, now
from hil.schema import measurements, prepare, quarantine, read, row_of

FIND_AT_ONCE = 500  # SQLite limits the variables of a statement
SHA256_DIGITS = re.compile("[0-9a-f]{6,64}")  # fewer might mean several models


@dataclass(frozen=True)
class Quarantined:
    """A model that is not run, or was not run, under some conditions.

    Attributes:
        model: its name when it last failed; "" where the store holds no such measurement.
        conditions_key: the conditions under which it is not run.
        since: the host's clock, ISO 8601 in UTC.
        cleared_at: the host's clock, ISO 8601 in UTC; None: it is still in quarantine.
    """

    model_sha256: str
    model: str
    conditions_key: str
    reason: str
    since: str
    cleared_at: str | None


class Store:
    """Use as a context manager, or call `close`. Several processes and threads may share one."""

    def __init__(self, path_or_url: str | Path, *, create: bool = True) -> None:
        """Makes the store where there is none, if `create`. Raises UsageError for a corrupt, foreign or newer one."""
        self._database = Database(path_or_url, create=create)
        self._where = self._database.shown
        self._transaction = self._database.transaction
        try:
            with self._transaction() as connection:
                prepare(connection, self._where, create=create)
        except BaseException:
            self.close()
            raise

    def add(self, measurement: Measurement) -> bool:
        """Durable when it returns. False when that attempt at that job is there already: what is there stays."""
        try:
            with self._transaction() as connection:
                connection.execute(measurements.insert().values(row_of(measurement)))
        except IntegrityError:
            return False
        return True

    def find(self, job_ids: Iterable[str]) -> dict[str, Measurement]:
        """The latest attempt at those of the jobs that are there, by job id."""
        wanted, found = list(job_ids), {}
        table = measurements.c
        with self._transaction() as connection:
            for start in range(0, len(wanted), FIND_AT_ONCE):
                part = wanted[start : start + FIND_AT_ONCE]
                query = select(table.job_id, table.record).where(table.job_id.in_(part)).order_by(table.attempt)
                found.update({row.job_id: row.record for row in connection.execute(query)})
        return {job_id: read(record, self._where) for job_id, record in found.items()}

    def all(self) -> list[Measurement]:
        """In the order in which they were added, every attempt."""
        query = select(measurements.c.record).order_by(measurements.c.number)
        with self._transaction() as connection:
            return [read(record, self._where) for record in connection.execute(query).scalars()]

    def quarantine(self, model_sha256: str, conditions_key: str, reason: str) -> None:
        """This model crashed, hung or took the board down under these conditions: it is not run again.

        One that is in quarantine already keeps its reason.
        """
        row = {
            "model_sha256": model_sha256,
            "conditions_key": conditions_key,
            # a dying program prints anything, and PostgreSQL stores no NUL
            "reason": "".join(sign if sign.isprintable() else " " for sign in reason),
            "since": now(),
        }
        try:
            with self._transaction() as connection:
                connection.execute(quarantine.insert().values(row))
        except IntegrityError:
            pass

    def quarantined(self, conditions_key: str) -> dict[str, str]:
        """{model sha256: reason} of what is in quarantine under these conditions."""
        table = quarantine.c
        query = select(table.model_sha256, table.reason).where(
            table.conditions_key == conditions_key, table.cleared_at.is_(None)
        )
        with self._transaction() as connection:
            return {row.model_sha256: row.reason for row in connection.execute(query)}

    def quarantines(self) -> list[Quarantined]:
        """All that ever were, the oldest first."""
        failed = (
            select(measurements.c.record)
            .where(
                measurements.c.status == "failed", measurements.c.model_sha256.in_(select(quarantine.c.model_sha256))
            )
            .order_by(measurements.c.number)
        )
        with self._transaction() as connection:
            rows = connection.execute(quarantine.select().order_by(quarantine.c.number)).all()
            records = [json.loads(record) for record in connection.execute(failed).scalars()]
        names = {record["model_sha256"]: record["model"] for record in records}
        return [
            Quarantined(
                row.model_sha256,
                names.get(row.model_sha256, ""),
                row.conditions_key,
                row.reason,
                row.since,
                row.cleared_at,
            )
            for row in rows
        ]

    def clear(self, model_sha256: str | None = None) -> int:
        """Lets models run again: those whose sha256 begins so, or all. Returns how many quarantines ended; rows stay.

        Raises UsageError for anything but 6 or more digits of a sha256.
        """
        if model_sha256 is not None and not SHA256_DIGITS.fullmatch(model_sha256):
            raise UsageError(f"{model_sha256}: not a model: give the first 6 or more digits of its sha256 (0-9, a-f)")
        those = quarantine.update().where(quarantine.c.cleared_at.is_(None)).values(cleared_at=now())
        if model_sha256 is not None:
            those = those.where(quarantine.c.model_sha256.startswith(model_sha256))
        with self._transaction() as connection:
            return connection.execute(those).rowcount

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
