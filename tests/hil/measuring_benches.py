"""Every kind of board, ready to measure the same four jobs: three good ones and one with a wrong expectation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.measure import Job, MeasureProtocol, measure
from hil.session import Session
from hil.sessions import open_session
from hil.store import Store
from tests.hil.labgrid_bench import labgrid_board
from tests.hil.loopback_boards import SERVERS, add_job, loopback
from tests.hil.private_servers import Private, private_board

QUICK = MeasureProtocol(warmup_runs=1, warmup_runs_most=1, runs=4, rounds=2, compile_deadline_s=60, run_deadline_s=60)
SMALL_SERVERS = [
    pytest.param("dropbear", id="dropbear", marks=pytest.mark.system),
    pytest.param("dropbear-without-sftp", id="dropbear-without-sftp", marks=pytest.mark.system),
]
KINDS = [
    *SERVERS,
    *SMALL_SERVERS,
    pytest.param("labgrid", id="labgrid"),
    pytest.param("replay", id="replay"),
    pytest.param("qemu", id="qemu", marks=pytest.mark.qemu),
]


@dataclass(frozen=True)
class Bench:
    kind: str
    session: Session
    jobs: Sequence[Job]  # the last one's expected output is wrong


@contextmanager
def settings_of(kind: str, folder: Path) -> Iterator[BoardConfig]:
    """A board's settings, but for a replay."""
    if kind == "labgrid":
        with labgrid_board(folder / "labgrid") as config:
            yield config
    elif kind == "dropbear":
        with private_board(folder, Private()) as config:
            yield config
    elif kind == "dropbear-without-sftp":
        with private_board(folder, Private(sftp=None)) as config:
            yield config
    elif kind == "qemu":
        if os.environ.get("HILNAS_QEMU") != "1":
            pytest.skip("the emulated board takes minutes: HILNAS_QEMU=1 runs it")
        yield BoardConfig(name="qemu", kind="qemu")
    else:
        yield loopback(kind)


@contextmanager
def measuring_bench(kind: str, folder: Path) -> Iterator[Bench]:
    jobs = [*(add_job(folder, constant) for constant in (1, 2, 3)), add_job(folder, 4, wrong=5)]
    if kind == "replay":
        with open_board(loopback("asyncssh")) as board, Session(board) as session, Store(folder / "rec.db") as store:
            list(measure(session, jobs, QUICK, store))
        config = BoardConfig(name="again", kind="replay", store=str(folder / "rec.db"))
        with open_board(config) as board, open_session(board) as session:
            yield Bench(kind, session, jobs)
        return
    with settings_of(kind, folder) as config, open_board(replace(config)) as board, open_session(board) as session:
        yield Bench(kind, session, jobs)
