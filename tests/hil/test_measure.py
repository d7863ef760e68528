from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hil.boards.kinds import open_board
from hil.errors import Incomparable, LinkLost, UsageError
from hil.measure import Job, MeasureProtocol, measure, pooled
from hil.measurement import Measurement
from hil.session import Session
from hil.store import Store
from tests.hil import tiny_model
from tests.hil.loopback_boards import add_job, loopback

QUICK = MeasureProtocol(warmup_runs=1, runs=4, rounds=2, compile_deadline_s=20, run_deadline_s=20)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with open_board(loopback("asyncssh", kernels="builtin")) as board, Session(board) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as opened:
        yield opened


def test_rounds_are_interleaved_and_every_one_is_stored(session: Session, store: Store, tmp_path: Path) -> None:
    jobs = [add_job(tmp_path, constant) for constant in range(1, 5)]
    done = list(measure(session, jobs, QUICK, store))
    assert [m.round for m in done] == [0] * 4 + [1] * 4
    assert {m.model for m in done[:4]} == {job.name for job in jobs}
    assert all(m.status == "ok" and len(m.latencies_us) == 4 for m in done)
    assert done[0].parity is not None and done[0].parity.mismatched == 0 and done[0].operators == ("ADD",)
    assert store.all() == done
    assert {len(pool) for pool in pooled(done).values()} == {8}


def test_the_order_comes_from_the_seed(session: Session, store: Store, tmp_path: Path) -> None:
    jobs = [add_job(tmp_path, constant) for constant in range(1, 7)]
    orders = [[m.model for m in measure(session, jobs, QUICK, store, seed=seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_what_is_done_is_not_run_again(session: Session, store: Store, tmp_path: Path, monkeypatch) -> None:
    jobs = [add_job(tmp_path, constant) for constant in range(1, 4)]
    begun = measure(session, jobs, QUICK, store)
    first = [next(begun), next(begun)]
    begun.close()  # as if we had been killed here
    asked: list[str] = []
    send = session.send
    monkeypatch.setattr(session, "send", lambda request: asked.append(request.id) or send(request))
    done = list(measure(session, jobs, QUICK, store))
    assert done[:2] == first and len(done) == 6
    assert len(asked) == len(set(asked)) == 4
    assert not {m.job_id for m in first} & set(asked)
    more = replace(QUICK, rounds=3)
    assert len(list(measure(session, jobs, more, store))) == 9
    assert len(asked) == 7


def test_a_bad_model_fails_alone(session: Session, store: Store, tmp_path: Path) -> None:
    good = add_job(tmp_path, 1)
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(good.model.read_bytes()[:200])
    wrong = add_job(tmp_path, 2, wrong=5)
    (tmp_path / "minus").write_bytes(b"\x00\x00\x80\xbf" * 1024)  # -1.0, whose logarithm is NaN
    nan = Job(tiny_model.float_log(tmp_path / "log.tflite"), "log", tmp_path / "minus")
    done = list(measure(session, [Job(cut, "cut"), wrong, nan, good], QUICK, store))
    by_name: dict[str, list[Measurement]] = {}
    for m in done:
        by_name.setdefault(m.model, []).append(m)
    assert [m.status for m in by_name["add1"]] == ["ok", "ok"]
    for name, reason in {"cut": "Flatbuffer", "add2": "5 of 1024 elements", "log": "1024 NaN"}.items():
        assert [m.status for m in by_name[name]] == ["failed", "failed"]
        assert all(m.failure and m.failure.kind == "model" and not m.latencies_us for m in by_name[name])
        assert reason in by_name[name][0].failure.reason
        assert "not run again" in by_name[name][1].failure.reason
    assert list(pooled(done)) == [by_name["add1"][0].model_sha256]


def test_a_tolerance_accepts_small_differences(store: Store, tmp_path: Path) -> None:
    job = add_job(tmp_path, 2, wrong=5)
    for settings, status in [
        ({"parity_max_abs_diff": 1.0}, "ok"),
        ({"parity_max_mismatch": 0.01}, "ok"),
        ({"parity_max_mismatch": 0.001}, "failed"),
    ]:
        with open_board(loopback("asyncssh", **settings)) as board, Session(board) as session:
            assert next(measure(session, [job], QUICK, store)).status == status


def test_a_hang_costs_its_deadline_and_nothing_more(session: Session, store: Store, tmp_path: Path) -> None:
    protocol = MeasureProtocol(warmup_runs=0, runs=100_000_000, rounds=1, run_deadline_s=1.0)
    done = list(measure(session, [add_job(tmp_path, 1)], protocol, store))
    assert done[0].failure and "within 1 s" in done[0].failure.reason
    assert next(measure(session, [add_job(tmp_path, 2)], QUICK, store)).status == "ok"


def test_a_lost_link_is_retried_once(session: Session, store: Store, tmp_path: Path, monkeypatch) -> None:
    receive, lost = session.receive, [True]

    def lose_one(job_id):
        if lost.pop() if lost else False:
            raise LinkLost("gone")
        return receive(job_id)

    monkeypatch.setattr(session, "receive", lose_one)
    assert next(measure(session, [add_job(tmp_path, 1)], QUICK, store)).status == "ok"
    monkeypatch.setattr(session, "receive", lambda job_id: (_ for _ in ()).throw(LinkLost("gone")))
    with pytest.raises(LinkLost):
        list(measure(session, [add_job(tmp_path, 2)], QUICK, store))
    assert len(store.all()) == 1


def test_a_runner_killed_during_a_job_is_the_boards_fault(store: Store, tmp_path: Path) -> None:
    with open_board(loopback("asyncssh")) as board, Session(board) as session:
        long = MeasureProtocol(warmup_runs=0, runs=8_000, rounds=1)
        killed: list[int] = []
        threading.Thread(target=kill_runner, args=(str(board.folder), killed)).start()
        done = list(measure(session, [add_job(tmp_path, 1)], long, store))
        assert killed and done[0].status == "ok"


def test_objects_cleaned_away_are_staged_again(store: Store, tmp_path: Path) -> None:
    with open_board(loopback("asyncssh")) as board, Session(board) as session:
        assert next(measure(session, [add_job(tmp_path, 1)], QUICK, store)).status == "ok"
        for path in (Path(board.config.workdir) / "objects").iterdir():
            path.unlink()
        protocol = replace(QUICK, runs=5)
        assert next(measure(session, [add_job(tmp_path, 1)], protocol, store)).status == "ok"


def test_unlike_conditions_are_never_pooled(session: Session, store: Store, tmp_path: Path) -> None:
    one = next(measure(session, [add_job(tmp_path, 1)], QUICK, store))
    other = replace(one, conditions=replace(one.conditions, governor="powersave"))
    with pytest.raises(Incomparable):
        pooled([one, other])
    warmer = replace(one, job_id="warmer", conditions=replace(one.conditions, temperature_c=70.0))
    assert len(pooled([one, warmer])[one.model_sha256]) == 8


def test_a_sample_counts_once_however_many_names_its_file_has(session: Session, store: Store, tmp_path: Path) -> None:
    job = add_job(tmp_path, 1)
    done = list(measure(session, [job, replace(job, name="copy")], QUICK, store))
    assert Counter(m.model for m in done) == {job.name: 2, "copy": 2} and len(store.all()) == 2
    assert [len(pool) for pool in pooled(done).values()] == [8]


def test_short_runs_are_timed_together(session: Session, store: Store, tmp_path: Path) -> None:
    (one,) = measure(session, [add_job(tmp_path, 1)], replace(QUICK, rounds=1), store)
    assert one.calls > 1 and one.clock_ns < 100_000
    assert all(one.calls * us >= 50 for us in one.latencies_us)  # 100 us are aimed at
    assert one.cores is not None and 1 <= one.cores <= len(os.sched_getaffinity(0))
    assert one.path == str(tmp_path / "add1.tflite") and not {"oversubscribed", "coarse"} & set(one.flags)


def test_files_that_do_not_exist_are_a_usage_error(session: Session, store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        list(measure(session, [Job(tmp_path / "nowhere.tflite", "x")], QUICK, store))
    with pytest.raises(UsageError, match="give both"):
        Job(tmp_path / "m", "m", expected=tmp_path / "y")


def kill_runner(folder: str, killed: list[int]) -> None:
    """Kills the runner of that board once it has a child at work."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and not killed:
        for process in psutil.process_iter():
            try:
                ours = any(f"{folder}/work/objects/" in word for word in process.cmdline())
                if ours and process.children() and process.children()[0].cpu_times().user > 0.2:
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    break
            except psutil.Error:
                continue
        time.sleep(0.02)
