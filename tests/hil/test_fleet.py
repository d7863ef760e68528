"""Boards of one kind on one queue: shared work, a board that dies, jobs made on the way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hil import fleet
from hil.boards.board import Board
from hil.boards.config import BoardConfig
from hil.errors import BoardError, UsageError
from hil.fleet import Lost, measure_on_fleet
from hil.job import Job, MeasureProtocol
from hil.measurement import Measurement
from hil.session import Session
from hil.sessions import open_session
from hil.store import Store
from tests.hil.loopback_boards import add_job, loopback
from tests.hil.server_processes import end

QUICK = MeasureProtocol(warmup_runs=1, warmup_runs_most=1, runs=4, rounds=2, compile_deadline_s=20, run_deadline_s=20)


def two_boards(tmp_path: Path) -> list[BoardConfig]:
    return [
        replace(loopback("asyncssh"), name=name, fleet="pair", workdir=str(tmp_path / name))
        for name in ("left", "right")
    ]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> dict[str, Board]:
    """The boards by their names; neither begins before both are open, or one might do all the work."""
    boards: dict[str, Board] = {}
    both_open = threading.Barrier(2)

    @contextmanager
    def opened(board: Board) -> Iterator[Session]:
        with open_session(board) as session:
            boards[board.name] = board
            both_open.wait(120)
            yield session

    monkeypatch.setattr(fleet, "open_session", opened)
    return boards


@pytest.mark.usefixtures("together")
def test_one_file_under_two_names_is_shown_under_both(tmp_path: Path) -> None:
    job = add_job(tmp_path, 1)
    with Store(tmp_path / "s.db") as store:
        found = measure_on_fleet(two_boards(tmp_path), [job, replace(job, name="copy")], QUICK, store, batch=2)
        assert Counter(m.model for m in found if isinstance(m, Measurement)) == {job.name: 2, "copy": 2}
        assert len(store.all()) == 2


@pytest.mark.usefixtures("together")
def test_two_boards_share_the_work(tmp_path: Path) -> None:
    jobs = [add_job(tmp_path, constant) for constant in range(1, 13)]
    with Store(tmp_path / "s.db") as store:
        done = [
            m for m in measure_on_fleet(two_boards(tmp_path), jobs, QUICK, store, batch=2) if isinstance(m, Measurement)
        ]
        assert Counter(m.model for m in done) == {job.name: 2 for job in jobs}
        assert {m.conditions.unit for m in done} == {"left", "right"}
        assert len({m.conditions.key() for m in done}) == 1
        units: dict[str, set[str]] = {}
        for m in done:
            units.setdefault(m.model, set()).add(m.conditions.unit)
        assert all(len(names) == 1 for names in units.values()), "the rounds of a model stay on one board"
        assert len(store.all()) == 24


def test_a_board_that_dies_gives_its_jobs_back(tmp_path: Path, together: dict[str, Board]) -> None:
    jobs = [add_job(tmp_path, constant) for constant in range(1, 11)]
    slow = replace(QUICK, runs=6_000, rounds=1)
    lost, done = [], []
    with Store(tmp_path / "s.db") as store:
        for result in measure_on_fleet(two_boards(tmp_path), jobs, slow, store, batch=2):
            if isinstance(result, Lost):
                lost.append(result)
                continue
            done.append(result)
            if len(done) == 2:
                unplug(together["left"])
        assert [one.board for one in lost] == ["left"]
        assert sorted(m.model for m in done) == sorted(job.name for job in jobs)
        assert len(store.all()) == 10


def test_no_board_left_is_a_board_fault(tmp_path: Path) -> None:
    broken = [replace(board, python="/no/such/python") for board in two_boards(tmp_path)]
    with Store(tmp_path / "s.db") as store, pytest.raises(BoardError, match="no board is left"):
        list(measure_on_fleet(broken, [add_job(tmp_path, 1)], QUICK, store))


def test_jobs_are_made_while_boards_measure_and_their_errors_are_ours(tmp_path: Path) -> None:
    def made() -> Iterator[Job]:
        for constant in range(1, 4):
            yield add_job(tmp_path, constant)
        raise UsageError("the fourth cannot be made")

    with Store(tmp_path / "s.db") as store:
        with pytest.raises(UsageError, match="fourth"):
            list(measure_on_fleet(two_boards(tmp_path), made(), QUICK, store, batch=1))
        with pytest.raises(UsageError, match="not of one fleet"):
            list(measure_on_fleet([loopback("asyncssh"), *two_boards(tmp_path)], [], QUICK, store))


def test_a_fault_of_ours_is_not_taken_for_a_board_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Iterator[Measurement]:
        raise ZeroDivisionError("ours")
        yield

    monkeypatch.setattr("hil.fleet.measure", broken)
    with Store(tmp_path / "s.db") as store, pytest.raises(ZeroDivisionError):
        list(measure_on_fleet(two_boards(tmp_path), [add_job(tmp_path, 1)], QUICK, store))


def unplug(board: Board) -> None:
    """Ends that board's SSH server and everything under it, as a power cut does."""
    guard = psutil.Process(board._guard.pid)
    for process in [*guard.children(recursive=True), guard]:
        end(process)
