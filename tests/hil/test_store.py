from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hil.errors import UsageError
from hil.measurement import Conditions, Failure, Measurement, Parity
from hil.store import Store

CONDITIONS = Conditions(
    board="bench", kind="loopback", machine="aarch64", soc="some", kernel="6.6.36", runtime="tflite 2.16",
    delegate="none", kernels="xnnpack", threads=1, governor="performance", temperature_c=41.5, boot_id="b",
    python="3.12.1",
)  # fmt: skip
ONE = Measurement(
    job_id="j0", model="m", model_sha256="a" * 64, round=0, status="ok", load_us=10, first_us=20,
    latencies_us=(5, 6, 5), conditions=CONDITIONS, parity=Parity(10, 1, 2.0), operators=("ADD",),
    delegated_nodes=0, failure=None, started_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip
FAILED = replace(ONE, job_id="f", status="failed", latencies_us=(), failure=Failure("model", "why"), parity=None)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        assert store.add(ONE) and store.add(FAILED)
        assert not store.add(replace(ONE, model="another"))
    with Store(tmp_path / "s.db") as store:
        assert store.all() == [ONE, FAILED]
        assert store.find(["j0", "unknown"]) == {"j0": ONE}
        assert store.find(str(number) for number in range(2000)) == {}


def test_added_is_durable_when_the_process_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from dataclasses import replace; from test_store import ONE; from hil.store import Store\n"
        "store, n = Store(sys.argv[1]), 0\n"
        "while True:\n"
        "    store.add(replace(ONE, job_id=f'job{n}')); print(n, flush=True); n += 1\n"
    )
    here = Path(__file__).resolve().parent
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s.db"), str(here)],
        env={**os.environ, "PYTHONPATH": str(here.parents[1])}, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        said = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout]
    with Store(tmp_path / "s.db") as store:
        kept = [m.job_id for m in store.all()]
        assert len(said) <= len(kept) <= len(said) + 1
        assert kept == [f"job{n}" for n in range(len(kept))]


def test_two_writers_share_a_file(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as one, Store(tmp_path / "s.db") as two:
        for number in range(10):
            assert one.add(replace(ONE, job_id=f"a{number}"))
            assert two.add(replace(ONE, job_id=f"b{number}"))
            assert not two.add(replace(ONE, job_id=f"a{number}"))
        assert len(one.all()) == 20


@pytest.mark.parametrize("damage", ["text", "other", "zeroed", "version", "record"])
def test_what_is_no_store_of_ours_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.db"
    if damage == "text":
        path.write_text("this is not a database, whatever its name says" * 100)
    elif damage == "other":
        spoil(path, "CREATE TABLE songs (title TEXT)")
    else:
        with Store(path) as store:
            for number in range(200):
                store.add(replace(ONE, job_id=str(number)))
    if damage == "zeroed":
        data = bytearray(path.read_bytes())
        data[1000:-1000] = bytes(len(data) - 2000)
        path.write_bytes(data)
    elif damage == "version":
        spoil(path, "UPDATE hilnas_schema SET version = 99")
    elif damage == "record":
        spoil(path, "UPDATE measurements SET record = '{}'")
    with pytest.raises(UsageError, match=r"s\.db: ") as caught, Store(path) as store:
        store.all()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        Store(tmp_path / "none" / "s.db")
    with pytest.raises(UsageError, match="no such kind"):
        Store("nosuchdatabase://x/y")


def spoil(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def test_sqlite_is_told_to_survive_a_power_cut(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store, store._engine.connect() as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
        assert asked == {"journal_mode": "wal", "synchronous": 2}  # 2: FULL
