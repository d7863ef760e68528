"""Power hooks, for real: a command that kills and starts the loopback's own SSH server on its port."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hil.boards.kinds import open_board
from hil.boards.loopback import LoopbackBoard, asyncssh_argv, server_environment
from hil.boards.power import answering, switch
from hil.errors import BoardError, Unreachable, UsageError
from hil.measure import MeasureProtocol, measure
from hil.session import Session
from hil.store import Store
from tests.hil.loopback_boards import add_job, loopback
from tests.hil.server_processes import end, server_processes

QUICK = MeasureProtocol(warmup_runs=1, warmup_runs_most=1, runs=4, rounds=2, compile_deadline_s=20, run_deadline_s=20)
PLUG = """\
import os, signal, subprocess, sys
pid_file, action, environment, argv = {pid_file!r}, sys.argv[-1], {environment!r}, {argv!r}
open({log!r}, "a").write(action + "\\n")
if action in ("off", "cycle") and os.path.exists(pid_file):
    os.killpg(int(open(pid_file).read()), signal.SIGKILL)
    os.unlink(pid_file)
if action in ("on", "cycle"):
    server = subprocess.Popen(argv, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    open(pid_file, "w").write(str(server.pid))
"""


class Plug:
    """A power hook of a loopback, and the actions that it was called with."""

    def __init__(self, board: LoopbackBoard, folder: Path) -> None:
        self.board, self.log, self.pid_file = board, folder / "plug.log", folder / "plug.pid"
        script = folder / "plug.py"
        argv = asyncssh_argv(board.folder, board.config.port)
        script.write_text(
            PLUG.format(pid_file=str(self.pid_file), log=str(self.log), argv=argv, environment=server_environment())
        )
        board.config = replace(board.config, power=(sys.executable, str(script)), return_deadline_s=20)

    def actions(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def pull(self) -> None:
        """Power loss: the server and everything that it runs are gone at once."""
        ending = server_processes(self.board)[::-1]
        for process in ending:
            end(process)
        psutil.wait_procs(ending, timeout=10)


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    with open_board(loopback("asyncssh", workdir=str(tmp_path / "work"))) as board:
        made = Plug(board, tmp_path)
        hook = board.config
        yield made
        switch(hook, "off")


def test_a_board_that_lost_power_is_cycled_and_the_run_goes_on(plug: Plug, tmp_path: Path) -> None:
    jobs = [add_job(tmp_path, constant) for constant in range(1, 9)]  # more than the board holds ahead
    with Session(plug.board) as session, Store(tmp_path / "s.db") as store:
        running = measure(session, jobs, QUICK, store)
        done = [next(running), next(running)]
        plug.pull()
        done += list(running)
        assert len({m.job_id for m in done}) == 16 and {m.status for m in done} == {"ok"}
        assert store.all() == done
        assert len({m.conditions.key() for m in done}) == 1
    assert plug.actions() == ["cycle"]


STUCK = """\
import fcntl, hashlib, json, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
other = int(sys.argv[3])  # it is killed in vain, as a process is that waits in the kernel
os.truncate(fd, 0)
os.pwrite(fd, json.dumps({"pid": other, "token": hashlib.sha256(sys.argv[2].encode()).hexdigest()}).encode(), 0)
print("held", flush=True)
time.sleep(60)
"""


def test_a_runner_that_even_kill_does_not_end_is_a_board_to_cycle(plug: Plug) -> None:
    with Session(plug.board) as session, subprocess.Popen(["sleep", "60"]) as in_vain:
        session._stop()
        lock = f"{plug.board.config.workdir}/runner.lock"
        argv = [sys.executable, "-c", STUCK, lock, session._token, str(in_vain.pid)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout.readline() == "held\n"
            plug.board.config = replace(plug.board.config, power=("sh", "-c", f"kill -9 {driver.pid}"))
            session.reconnect()
            assert driver.wait(5) == -9


def test_without_a_hook_a_dead_board_is_reported_at_once(plug: Plug, tmp_path: Path) -> None:
    plug.board.config = replace(plug.board.config, power=(), return_deadline_s=0)
    with Session(plug.board) as session, Store(tmp_path / "s.db") as store:
        running = measure(session, [add_job(tmp_path, constant) for constant in range(1, 9)], QUICK, store)
        next(running)
        plug.pull()
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="refused"):
            list(running)
        assert time.monotonic() - begin < 10
    assert plug.actions() == []


def test_a_board_that_reboots_by_itself_is_waited_for(plug: Plug) -> None:
    hook = plug.board.config
    plug.board.config = replace(hook, power=())
    calls = []

    def attempt() -> str:
        calls.append(time.monotonic())
        if len(calls) == 3:
            switch(hook, "on")
        plug.board.disconnect()
        return plug.board.run(["echo", "up"], 10).stdout

    plug.pull()
    assert answering(plug.board, attempt) == "up\n"
    assert len(calls) >= 3 and plug.actions() == ["on"]


def test_a_board_that_never_comes_back_is_given_up(plug: Plug) -> None:
    plug.board.config = replace(plug.board.config, power=("true",), return_deadline_s=1.2)
    plug.pull()
    begin = time.monotonic()
    with pytest.raises(Unreachable, match=r"within 1.2 s after its power was cycled: .*refused.*console"):
        answering(plug.board, lambda: plug.board.run(["true"], 5))
    assert time.monotonic() - begin < 5


def test_the_message_names_what_is_wrong_with_a_hook(tmp_path: Path) -> None:
    config = loopback()
    with pytest.raises(UsageError, match="no power hook: set `power`"):
        switch(config, "on")
    with pytest.raises(UsageError, match="no-such-plug: No such file"):
        switch(replace(config, power=("no-such-plug",)), "on")
    script = tmp_path / "hook"
    script.write_text('#!/bin/sh\necho "relay $1 does not answer" >&2; exit 9\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(BoardError, match=r"hook 7 off` failed \(exit 9\): relay 7 does not answer"):
        switch(replace(config, power=(str(script), "7")), "off")
