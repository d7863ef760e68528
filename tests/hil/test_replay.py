"""A replay says what was recorded, nothing else, and never passes for a measurement."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig, load_boards
from hil.boards.kinds import open_board
from hil.errors import Incomparable, UsageError
from hil.measure import Job, measure, pooled
from hil.measurement import Measurement
from hil.session import Session
from hil.sessions import open_session
from hil.store import Store
from tests.hil.loopback_boards import add_job, loopback
from tests.hil.measuring_benches import QUICK

Record = Callable[..., list[Measurement]]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    with open_board(loopback("asyncssh")) as board, Session(board) as session:

        def run(path: Path, jobs: Sequence[Job]) -> list[Measurement]:
            with Store(path) as store:
                return list(measure(session, jobs, QUICK, store))

        yield run


@contextmanager
def replaying(path: Path, **settings: object) -> Iterator[Session]:
    config = BoardConfig(name="again", kind="replay", store=str(path), **settings)  # type: ignore[arg-type]
    with open_board(config) as board, open_session(board) as session:
        yield session


def test_it_answers_with_the_recorded_samples(record: Record, tmp_path: Path) -> None:
    jobs = [add_job(tmp_path, constant) for constant in (1, 2, 3)]
    recorded = record(tmp_path / "rec.db", jobs)
    with replaying(tmp_path / "rec.db", recorded_board="bench") as session, Store(tmp_path / "new.db") as store:
        done = list(measure(session, jobs, QUICK, store, seed=5))
        taken = {(m.model_sha256, m.round): m for m in recorded}
        for m in done:
            then = taken[m.model_sha256, m.round]
            conditions = replace(
                then.conditions, board="replay of bench", unit="again", kind="replay", boot_id="replay"
            )
            assert m == replace(then, job_id=m.job_id, started_at=m.started_at, conditions=conditions)
        assert store.all() == done
    with pytest.raises(Incomparable):
        pooled([*recorded, *done])


def test_what_was_not_recorded_is_refused(record: Record, tmp_path: Path) -> None:
    known, unknown = add_job(tmp_path, 1), add_job(tmp_path, 9)
    record(tmp_path / "rec.db", [known])
    record(tmp_path / "bare.db", [replace(known, expected=None)])
    cases = [
        (
            "rec.db",
            unknown,
            QUICK,
            r"add9\.tflite \([0-9a-f]{12}\) is not recorded so in .*rec\.db: no measurement of it",
        ),
        ("rec.db", known, replace(QUICK, rounds=3), "no round 3"),
        ("rec.db", known, replace(QUICK, runs=5), r"no 5 runs per round \(there are 4\)"),
        ("bare.db", known, QUICK, "no comparison with an expected output"),
    ]
    for number, (path, job, protocol, said) in enumerate(cases):
        with (
            replaying(tmp_path / path) as session,
            Store(tmp_path / f"new{number}.db") as store,
            pytest.raises(UsageError, match=said),
        ):
            list(measure(session, [job], protocol, store))


def test_recorded_failures_fail_again_and_clear_no_canary(record: Record, tmp_path: Path) -> None:
    good, bad = add_job(tmp_path, 1), add_job(tmp_path, 2, wrong=5)
    record(tmp_path / "rec.db", [good, bad])
    with replaying(tmp_path / "rec.db") as session, Store(tmp_path / "new.db") as store:
        done = list(measure(session, [good, bad], QUICK, store, canary=add_job(tmp_path, 7)))
    assert {m.model: m.status for m in done} == {"add1": "ok", "add2": "failed"}
    assert "5 of 1024" in next(m.failure.reason for m in done if m.failure and m.round == 0)


def test_a_replay_is_never_replayed_and_boards_are_never_mixed(record: Record, tmp_path: Path) -> None:
    job = add_job(tmp_path, 1)
    taken = record(tmp_path / "rec.db", [job])
    with replaying(tmp_path / "rec.db") as session, Store(tmp_path / "new.db") as store:
        list(measure(session, [job], QUICK, store))
    with pytest.raises(UsageError, match=r"several boards, or none \(no measurement\)"), replaying(tmp_path / "new.db"):
        pass
    with Store(tmp_path / "rec.db") as store:
        other = replace(taken[0].conditions, board="imx8mp", unit="left")
        store.add(replace(taken[0], job_id="other", conditions=other))
    with (
        pytest.raises(UsageError, match=r"several boards.*bench, imx8mp, left.*fix `recorded_board`"),
        replaying(tmp_path / "rec.db"),
    ):
        pass
    with pytest.raises(UsageError, match="nothing of 'right'"), replaying(tmp_path / "rec.db", recorded_board="right"):
        pass
    for name in ("imx8mp", "left"):
        with replaying(tmp_path / "rec.db", recorded_board=name) as session:
            assert session.conditions.board == "replay of imx8mp"


def test_it_has_no_machine(tmp_path: Path) -> None:
    board = open_board(BoardConfig(name="again", kind="replay", store=str(tmp_path / "rec.db")))
    actions = (
        lambda: board.run(["true"], 1),
        lambda: board.start(["true"]),
        lambda: board.put(tmp_path, "/x"),
        lambda: board.get("/x", tmp_path),
    )
    for action in actions:
        with pytest.raises(UsageError, match=r"is a replay of .*rec\.db, without a machine"):
            action()
    with pytest.raises(UsageError, match="no store"), open_session(board):
        pass
    assert not (tmp_path / "rec.db").exists()
    (tmp_path / "boards.toml").write_text('[a]\nkind = "replay"\n')
    with pytest.raises(UsageError, match="needs store"):
        load_boards(tmp_path / "boards.toml")


def test_it_is_marked_wherever_a_person_looks(record: Record, tmp_path: Path) -> None:
    job = add_job(tmp_path, 1)
    record(tmp_path / "rec.db", [replace(job, input=None, expected=None)])
    (tmp_path / "boards.toml").write_text(f'[again]\nkind = "replay"\nstore = "{tmp_path}/rec.db"\n')
    argv = ["profile", str(job.model), "--board", "again", "--boards", str(tmp_path / "boards.toml")]
    argv += ["--runs", "4", "--rounds", "2", "--store", str(tmp_path / "new.db")]
    root = Path(__file__).resolve().parents[2]
    program = "import sys; from deploy.cli import main; sys.exit(main())"
    said = subprocess.run(
        [sys.executable, "-c", program, *argv], cwd=root, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert "REPLAY: these latencies are a replay of bench" in said and "on replay of bench" in said
