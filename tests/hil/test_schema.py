"""From the first version's tables, as that version made and filled them, to today's."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from hil.errors import UsageError
from hil.measurement import Conditions, Failure, Measurement, Parity, Readings
from hil.store import Store
from tests.hil.stored_measurements import execute

TABLES = (
    "CREATE TABLE hilnas_schema (version INTEGER NOT NULL)",
    """CREATE TABLE measurements (
        number {number} NOT NULL,
        job_id VARCHAR(64) NOT NULL,
        model_sha256 VARCHAR(64) NOT NULL,
        status VARCHAR(16) NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (number),
        UNIQUE (job_id)
    )""",
    "CREATE INDEX ix_measurements_model_sha256 ON measurements (model_sha256)",
    "INSERT INTO hilnas_schema VALUES (1)",
)
RECORD = (
    '{"conditions": {"board": "bench", "boot_id": "b", "delegate": "none", "governor": "performance", "kernel": '
    '"6.6.36", "kernels": "xnnpack", "kind": "loopback", "machine": "aarch64", "python": "3.12.1", "runtime": '
    '"tflite 2.16", "soc": "some", "temperature_c": 41.5, "threads": 1}, "delegated_nodes": 0, "failure": null, '
    '"first_us": 20, "job_id": "j0", "latencies_us": [5, 6, 5], "load_us": 10, "model": "m", "model_sha256": '
    '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "operators": ["ADD"], "parity": '
    '{"elements": 10, "max_abs_diff": 2.0, "mismatched": 1}, "round": 0, "started_at": '
    '"2026-01-01T00:00:00+00:00", "status": "ok"}'
)
ADDED = {"cores", "calls", "clock_ns", "path"}
"""What version 3 has and version 2 had not."""
CONDITIONS = Conditions(
    board="bench", unit="bench", kind="loopback", machine="aarch64", soc="some", kernel="6.6.36", bsp="unknown",
    npu="unknown", driver="python", runtime="tflite 2.16", delegate="none", kernels="xnnpack", threads=1,
    governor="performance", temperature_c=41.5, boot_id="b", python="3.12.1",
)  # fmt: skip


def raw(number: int) -> dict[str, Any]:
    """Every third one failed, and no answer of every fifth was checked."""
    record = {**json.loads(RECORD), "job_id": f"j{number}", "latencies_us": [number, 6, 5], "round": number % 7}
    if number % 3 == 0:
        record.update(status="failed", latencies_us=[], failure={"kind": "model", "reason": "why"}, parity=None)
    if number % 5 == 0:
        record["parity"] = None
    return record


def upgraded(number: int) -> Measurement:
    ok, checked = number % 3 != 0, number % 5 != 0 and number % 3 != 0
    return Measurement(
        job_id=f"j{number}", model="m", model_sha256="a" * 64, round=number % 7, status="ok" if ok else "failed",
        load_us=10, first_us=20, latencies_us=(number, 6, 5) if ok else (), conditions=CONDITIONS,
        parity=Parity(10, 1, 2.0) if checked else None, operators=("ADD",), delegated_nodes=0,
        failure=None if ok else Failure("model", "why"), started_at="2026-01-01T00:00:00+00:00", warmup_us=0,
        warmup_runs=0, cache="none", before=Readings(), after=Readings(), others_busy=0.0,
        flags=(*(("unchecked",) if ok and not checked else ()), *(("coarse",) if ok else ())), attempt=0,
        cores=None, calls=1, clock_ns=1000, path="",
    )  # fmt: skip


def write_version_1(where: str, records: list[dict[str, Any]]) -> None:
    tables = [table.format(number="SERIAL" if "://" in where else "INTEGER") for table in TABLES]
    execute(where, *tables)
    engine = create_engine(where if "://" in where else f"sqlite:///{where}")
    insert = "INSERT INTO measurements (number, job_id, model_sha256, status, record) VALUES (:n, :j, :m, :s, :r)"
    rows = [
        # numbers with gaps, as adding a job twice left them on PostgreSQL
        {"n": n + n // 7 + 1, "j": r["job_id"], "m": r["model_sha256"], "s": r["status"], "r": json.dumps(r)}
        for n, r in enumerate(records)
    ]
    with engine.begin() as connection:
        connection.execute(text(insert), rows)
    engine.dispose()


def content(where: str) -> tuple[list[str], list[Any]]:
    """The tables' names and the measurements' rows, whatever their version."""
    engine = create_engine(where if "://" in where else f"sqlite:///{where}")
    names = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }
    with engine.begin() as connection:
        tables = sorted(connection.execute(text(names[engine.dialect.name])).scalars())
        rows = [tuple(row) for row in connection.execute(text("SELECT * FROM measurements ORDER BY number"))]
    engine.dispose()
    return tables, rows


def test_version_1_is_brought_up_to_date_and_loses_nothing(where: str) -> None:
    numbers = range(2500)
    write_version_1(where, [raw(n) for n in numbers])
    with Store(where, create=False) as store:
        assert store.all() == [upgraded(n) for n in numbers]
        assert store.add(Measurement.from_json({**upgraded(0).to_json(), "attempt": 1}))
        assert not store.add(upgraded(1))
        assert store.find(["j0"])["j0"].attempt == 1 and store.find(["j7"]) == {"j7": upgraded(7)}
        store.quarantine("a" * 64, CONDITIONS.key(), "why")
    with Store(where) as store:
        assert len(store.all()) == 2501 and len(store.quarantines()) == 1
    assert content(where)[0] == ["hilnas_schema", "measurements", "quarantine"]


def write_version_2(where: str, numbers: range) -> None:
    """As version 2 wrote them: today's tables, records without what version 3 added."""
    write_version_1(where, [raw(n) for n in numbers])
    Store(where).close()
    engine = create_engine(where if "://" in where else f"sqlite:///{where}")
    with engine.begin() as connection:
        for number, record in connection.execute(text("SELECT number, record FROM measurements")).all():
            old = {name: value for name, value in json.loads(record).items() if name not in ADDED}
            old["flags"] = [flag for flag in old["flags"] if flag != "coarse"]
            change = text("UPDATE measurements SET record = :r WHERE number = :n")
            connection.execute(change, {"r": json.dumps(old, sort_keys=True), "n": number})
        connection.execute(text("UPDATE hilnas_schema SET version = 2"))
    engine.dispose()


def test_version_2_is_brought_up_to_date_and_loses_nothing(where: str) -> None:
    numbers = range(2500)
    write_version_2(where, numbers)
    execute(where, "INSERT INTO quarantine (model_sha256, conditions_key, reason, since) VALUES ('a', 'b', 'c', 'd')")
    before = [row[:-1] for row in content(where)[1]]
    with Store(where, create=False) as store:
        assert store.all() == [upgraded(n) for n in numbers]
        assert store.find(["j7"]) == {"j7": upgraded(7)} and len(store.quarantines()) == 1
    assert [row[:-1] for row in content(where)[1]] == before  # numbers, ids and states stay
    with Store(where) as store:
        assert len(store.all()) == 2500


def test_one_damaged_record_leaves_version_2_as_it_was(where: str) -> None:
    write_version_2(where, range(1500))
    execute(where, "UPDATE measurements SET record = '{\"flags\": []}' WHERE job_id = 'j1300'")
    before = content(where)
    with pytest.raises(UsageError, match="damaged record"):
        Store(where)
    assert content(where) == before


def test_runs_that_were_long_enough_are_not_coarse(where: str) -> None:
    write_version_1(where, [{**raw(1), "latencies_us": [99, 101, 100]}, {**raw(2), "latencies_us": [99, 99, 101]}])
    with Store(where) as store:
        assert [m.flags for m in store.all()] == [(), ("coarse",)]


def test_one_damaged_record_leaves_version_1_as_it_was(where: str) -> None:
    damaged = raw(1300)
    del damaged["status"]
    write_version_1(where, [*(raw(n) for n in range(1300)), {**damaged, "status": "odd"}, raw(1301)])
    before = content(where)
    with pytest.raises(UsageError, match="damaged record") as caught:
        Store(where)
    assert "\n" not in str(caught.value) and content(where) == before


def test_several_may_open_version_1_at_once(where: str) -> None:
    write_version_1(where, [raw(n) for n in range(300)])

    def opened(_: int) -> list[Measurement]:
        with Store(where) as store:
            return store.all()

    with ThreadPoolExecutor(8) as pool:
        assert all(found == [upgraded(n) for n in range(300)] for found in pool.map(opened, range(8)))


def test_a_newer_version_is_refused_and_left_alone(where: str, tmp_path: Path) -> None:
    Store(where).close()
    execute(where, "UPDATE hilnas_schema SET version = 4")
    before = content(where)
    with pytest.raises(UsageError, match="schema 4, this hilnas reads up to 3"):
        Store(where)
    assert content(where) == before
