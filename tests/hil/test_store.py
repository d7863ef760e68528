from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hil.errors import UsageError
from hil.store import Store
from tests.hil.stored_measurements import CONDITIONS, FAILED, ONE, execute

KEY = CONDITIONS.key()
ROOT = Path(__file__).resolve().parents[2]


def writer(script: str, where: str) -> subprocess.Popen[str]:
    """A process that runs `script` with an open `store`."""
    start = "import sys; from dataclasses import replace; from hil.store import Store\n"
    start += "from tests.hil.stored_measurements import ONE\n"
    return subprocess.Popen(
        [sys.executable, "-c", f"{start}store = Store(sys.argv[1])\n{script}", where],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_goes_in_comes_out(where: str) -> None:
    with Store(where) as store:
        assert store.add(ONE) and store.add(FAILED)
        assert not store.add(replace(ONE, model="another"))
    with Store(where) as store:
        assert store.all() == [ONE, FAILED]
        assert store.find(["j0", "unknown"]) == {"j0": ONE}
        assert store.find(str(number) for number in range(2000)) == {}


def test_the_latest_attempt_is_found_and_every_one_is_kept(where: str) -> None:
    first, second, third = FAILED, replace(FAILED, attempt=1), replace(ONE, job_id="f", attempt=2)
    with Store(where) as store:
        assert all(store.add(m) for m in (first, third, second, ONE))  # whatever order they come in
        assert not store.add(replace(third, model="another"))
        assert store.find(["f", "j0"]) == {"f": third, "j0": ONE}
        assert store.all() == [first, third, second, ONE]


def test_added_is_durable_when_the_process_is_killed(where: str) -> None:
    script = "n = 0\nwhile True:\n    store.add(replace(ONE, job_id=f'job{n}')); print(n, flush=True); n += 1\n"
    with writer(script, where) as process:
        said = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout]
    with Store(where) as store:
        kept = [m.job_id for m in store.all()]
        assert len(said) <= len(kept) <= len(said) + 1
        assert kept == [f"job{n}" for n in range(len(kept))]


def test_of_eight_processes_that_add_the_same_jobs_one_each_succeeds(where: str) -> None:
    script = (
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(40): print(n, int(store.add(replace(ONE, job_id=f'job{n}', attempt=n % 3))))\n"
    )
    processes = [writer(script, where) for _ in range(8)]  # they also make the store at once
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 8
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [tuple(map(int, line.split())) for process in processes for line in process.communicate()[0].splitlines()]
    assert len(said) == 8 * 40 and all(process.returncode == 0 for process in processes)
    assert Counter(number for number, added in said if added) == dict.fromkeys(range(40), 1)
    with Store(where) as store:
        assert sorted(m.job_id for m in store.all()) == sorted(f"job{n}" for n in range(40))


def test_two_writers_share_a_store(where: str) -> None:
    with Store(where) as one, Store(where) as two:
        for number in range(10):
            assert one.add(replace(ONE, job_id=f"a{number}"))
            assert two.add(replace(ONE, job_id=f"b{number}"))
            assert not two.add(replace(ONE, job_id=f"a{number}"))
        assert len(one.all()) == 20


@pytest.mark.parametrize("damage", ["other", "version", "no version", "record"])
def test_what_is_no_store_of_ours_is_refused_in_one_line(where: str, damage: str) -> None:
    if damage == "other":
        execute(where, "CREATE TABLE songs (title TEXT)")
    else:
        with Store(where) as store:
            store.add(ONE)
        spoil = {"version": "UPDATE hilnas_schema SET version = 99", "no version": "DELETE FROM hilnas_schema"}
        execute(where, spoil.get(damage, "UPDATE measurements SET record = '{}'"))
    said = {"other": "something else", "version": "schema 99", "no version": "schema unknown", "record": "damaged"}
    with pytest.raises(UsageError, match=said[damage]) as caught, Store(where) as store:
        store.all()
    assert "\n" not in str(caught.value) and str(caught.value).startswith(where)


@pytest.mark.parametrize("damage", ["text", "zeroed"])
def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.db"
    if damage == "text":
        path.write_text("this is not a database, whatever its name says" * 100)
    else:
        with Store(path) as store:
            for number in range(200):
                store.add(replace(ONE, job_id=str(number)))
        data = bytearray(path.read_bytes())
        data[1000:-1000] = bytes(len(data) - 2000)
        path.write_bytes(data)
    with pytest.raises(UsageError, match=r"s\.db: ") as caught, Store(path) as store:
        store.all()
    assert "\n" not in str(caught.value)


def test_a_store_that_is_not_there_is_not_made_to_be_read(where: str) -> None:
    with pytest.raises(UsageError, match=r"no store"):
        Store(where, create=False)
    assert "://" in where or not Path(where).exists()
    with Store(where) as store:
        store.add(ONE)
    with Store(where, create=False) as store:
        assert store.all() == [ONE]


def test_a_model_in_quarantine_stays_until_it_is_cleared(where: str) -> None:
    with Store(where) as store:
        store.add(replace(FAILED, model="bad.tflite"))
        store.quarantine(FAILED.model_sha256, KEY, "hung\nthen \0 died \udc80")
        store.quarantine("b" * 64, KEY, "crashed")
        store.quarantine("b" * 64, "another board", "crashed there")
        store.quarantine("b" * 64, KEY, "crashed again")
    with Store(where) as store:
        assert store.quarantined(KEY) == {"a" * 64: "hung then   died  ", "b" * 64: "crashed"}
        assert store.quarantined("unknown") == {}
        assert [q.model for q in store.quarantines()] == ["bad.tflite", "", ""]
        assert store.clear("aaaaaa") == 1 and store.clear("aaaaaa") == 0
        assert store.quarantined(KEY) == {"b" * 64: "crashed"}
        store.quarantine("a" * 64, KEY, "hung anew")
        assert store.clear() == 3 and store.quarantined(KEY) == {}
        rows = store.quarantines()
        assert [(q.model_sha256[0], q.reason) for q in rows] == [
            ("a", "hung then   died  "), ("b", "crashed"), ("b", "crashed there"), ("a", "hung anew"),
        ]  # fmt: skip
        assert all(q.cleared_at and q.since <= q.cleared_at for q in rows)
        for wrong in ("aaaaa", "%", "AAAAAA", "______", "a" * 65):
            with pytest.raises(UsageError, match="6 or more digits"):
                store.clear(wrong)


def test_many_at_once_quarantine_a_model_once(where: str) -> None:
    with Store(where) as store, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.quarantine("a" * 64, KEY, f"reason {number}"), range(32)))
        assert len(store.quarantines()) == 1
