"""The store's tables, and the way there from every older version of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    inspect,
    select,
    text,
)

from hil.errors import UsageError
from hil.measurement import WHOLE_MICROSECONDS_NS, Measurement
from hil.trust import Timer

SCHEMA_VERSION = 3
ROWS_AT_ONCE = 1000
PREPARING = 0x68696C6E6173  # "hilnas": the advisory lock under which PostgreSQL's tables are made

_metadata = MetaData()
versions = Table("hilnas_schema", _metadata, Column("version", Integer, nullable=False))
measurements = Table(
    "measurements",
    _metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("model_sha256", String(64), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("record", Text, nullable=False),
    UniqueConstraint("job_id", "attempt"),
)
quarantine = Table(
    "quarantine",
    _metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("model_sha256", String(64), nullable=False),
    Column("conditions_key", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", String(32), nullable=False),
    Column("cleared_at", String(32)),
)
_in_force = text("cleared_at IS NULL")
Index(
    "quarantine_in_force",
    quarantine.c.model_sha256,
    quarantine.c.conditions_key,
    unique=True,
    sqlite_where=_in_force,
    postgresql_where=_in_force,
)


def row_of(measurement: Measurement) -> dict[str, Any]:
    """The measurement as a row of `measurements`; its number is the database's to give."""
    return {
        "job_id": measurement.job_id,
        "attempt": measurement.attempt,
        "model_sha256": measurement.model_sha256,
        "status": measurement.status,
        "record": json.dumps(measurement.to_json(), sort_keys=True),
    }


def read(record: str, where: str, upgrade: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> Measurement:
    """Raises UsageError for a record that is not whole."""
    try:
        return Measurement.from_json(upgrade(json.loads(record)))
    except (UsageError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{where}: holds a damaged record ({error}): restore it from a copy") from error


def prepare(connection: Connection, where: str, *, create: bool) -> None:
    """Makes the tables where there are none (if `create`), and brings older ones up to date, within the caller's
    transaction. Raises UsageError for a database of something else, or of a newer hilnas.
    """
    if connection.dialect.name == "postgresql":  # SQLite's transactions are alone anyway
        connection.execute(select(func.pg_advisory_xact_lock(PREPARING)))
    present = set(inspect(connection).get_table_names())
    if not present and create:
        _metadata.create_all(connection)
        connection.execute(versions.insert().values(version=SCHEMA_VERSION))
        return
    if not present:
        raise UsageError(f"{where}: an empty database, no store; `hilnas profile` makes one")
    if versions.name not in present:
        raise UsageError(f"{where}: a database of something else ({min(present)}): name another one")
    found = list(connection.execute(select(versions.c.version)).scalars())
    if found == [1]:
        _from_1(connection, where)
    elif found == [2]:
        _from_2(connection, where)
    elif found != [SCHEMA_VERSION]:
        raise UsageError(
            f"{where}: written with schema {', '.join(map(str, found)) or 'unknown'}, "
            f"this hilnas reads up to {SCHEMA_VERSION}: use the version of hilnas that wrote it, or a new store"
        )


def _from_1(connection: Connection, where: str) -> None:
    """Version 1 had one attempt per job, and no quarantine."""
    connection.execute(text("DROP INDEX ix_measurements_model_sha256"))
    connection.execute(text("ALTER TABLE measurements RENAME TO measurements_1"))
    _metadata.create_all(connection)
    old = Table("measurements_1", MetaData(), Column("number", Integer), Column("record", Text))
    for rows in _pages(connection, old):
        moved = [row_of(read(row.record, where, lambda raw: _record_from_2(_record_from_1(raw)))) for row in rows]
        connection.execute(measurements.insert(), moved)
    old.drop(connection)
    connection.execute(versions.update().values(version=SCHEMA_VERSION))


def _from_2(connection: Connection, where: str) -> None:
    """Version 2 had the same tables; its records knew no cores, no batches of runs and no path."""
    change = measurements.update().where(measurements.c.number == bindparam("at"))
    for rows in _pages(connection, measurements):
        changed = [row_of(read(row.record, where, _record_from_2))["record"] for row in rows]
        values = [{"at": row.number, "record": record} for row, record in zip(rows, changed, strict=True)]
        connection.execute(change.values(record=bindparam("record")), values)
    connection.execute(versions.update().values(version=SCHEMA_VERSION))


def _pages(connection: Connection, table: Table) -> Iterator[Sequence[Row[Any, Any]]]:
    """(number, record) of all rows, some at once: a store may not fit into memory."""
    page = select(table.c.number, table.c.record).order_by(table.c.number).limit(ROWS_AT_ONCE)
    last = 0
    while rows := connection.execute(page.where(table.c.number > last)).all():
        yield rows
        last = rows[-1].number


def _record_from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """A record of version 1 with what version 2 added. What version 1 did not record is "unknown"."""
    nothing = {"temperature_c": None, "frequency_khz": None}
    unchecked = raw["parity"] is None and raw["status"] == "ok"
    added = {"unit": raw["conditions"]["board"], "bsp": "unknown", "npu": "unknown", "driver": "python"}
    return {
        **raw,
        "conditions": {**raw["conditions"], **added},
        "warmup_us": 0,
        "warmup_runs": 0,
        "cache": "none",
        "before": nothing,
        "after": nothing,
        "others_busy": 0.0,
        "cpu_operators": [],
        "flags": ["unchecked"] if unchecked else [],
        "attempt": 0,
    }


def _record_from_2(raw: dict[str, Any]) -> dict[str, Any]:
    """A record of version 2 with what version 3 added. It timed every run by itself, in whole microseconds."""
    coarse = Timer().too_coarse(raw["latencies_us"])
    return {
        **raw,
        "flags": [*raw["flags"], *(["coarse"] if coarse else [])],
        "cores": None,
        "calls": 1,
        "clock_ns": WHOLE_MICROSECONDS_NS,
        "path": "",
    }
