"""Boards with few tools, little or no room, or an old Python: each works, or is named with advice that helps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hil.boards.board import Board
from hil.boards.kinds import open_board
from hil.boards.ssh import SSHBoard
from hil.errors import BoardError, BoardFull
from hil.health import examine
from hil.measure import measure
from hil.reservation import occupancy, release, reserve
from hil.session import Session
from hil.stage import Stage, sha256_of
from hil.store import Store
from tests.hil.loopback_boards import add_job, loopback
from tests.hil.measuring_benches import QUICK
from tests.hil.private_servers import SFTP_SERVER, Private, private_board

FEW = (
    "cat",
    "chmod",
    "env",
    "grep",
    "kill",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "rmdir",
    "sh",
    "sleep",
    "test",
    "true",
)
SFTP = pytest.mark.parametrize("sftp", [SFTP_SERVER, None], ids=["sftp", "without-sftp"])
OLD = [Path.home() / f".pyenv/versions/{name}" for name in ("2.7.18", "3.6.15", "3.7.16", "3.8.18")]


def few_tools(folder: Path, busybox: bool) -> Path:
    """A login shell whose PATH has only what every board has: no tar, sha256sum, openssl, timeout, head, dirname."""
    program = shutil.which("busybox")
    if busybox and program is None:
        pytest.skip("no busybox here: make system, or apt install busybox")
    tools = folder / "tools"
    tools.mkdir(parents=True)
    for name in FEW:
        found = program if busybox else shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    shell = folder / "shell"
    shell.write_text(f'#!/bin/sh\nPATH={tools} exec {tools}/sh "$@"\n')
    shell.chmod(0o755)
    return shell


@SFTP
@pytest.mark.system
@pytest.mark.parametrize("busybox", [False, True], ids=["few-tools", "busybox"])
def test_a_userland_without_tar_and_sha256sum(busybox: bool, sftp: Path | None, tmp_path: Path) -> None:
    shell = few_tools(tmp_path / "userland", busybox)
    private = Private(login_shell=str(shell), sftp=sftp)
    with private_board(tmp_path / "board", private) as config, open_board(config) as board:
        for tool in ("tar", "sha256sum", "openssl", "timeout"):
            assert board.run([tool, "--help"], 10).exit_code == 127 or busybox
        with Session(board) as session, Store(tmp_path / "store.db") as store:
            done = list(measure(session, [add_job(tmp_path, 1), add_job(tmp_path, 2)], QUICK, store))
        assert {measurement.status for measurement in done} == {"ok"}
        assert {finding.state for finding in examine(board) if finding.check in ("reach", "runtime")} == {"ok"}


def test_without_tar_files_are_staged_as_whole_by_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = few_tools(tmp_path / "userland", busybox=False).with_name("tools")
    files = [tmp_path / f"{number}.tflite" for number in range(40)]
    for number, path in enumerate(files):
        path.write_bytes(os.urandom(number * 100))
    with open_board(loopback("asyncssh")) as board:
        run, put = board.run, board.put
        monkeypatch.setattr(board, "run", lambda argv, *rest: run(["env", f"PATH={tools}", *argv], *rest))
        staged = Stage(board, str(tmp_path / "work")).stage_many(files)
        assert all(Path(there).read_bytes() == path.read_bytes() for path, there in staged.items())
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["objects"]

        def damaged(local: Path, remote: str) -> None:
            local.write_bytes(local.read_bytes().replace(b"right", b"wrong"))
            put(local, remote)

        monkeypatch.setattr(board, "put", damaged)
        (tmp_path / "model").write_bytes(b"right")
        with pytest.raises(BoardError, match=r"1 files did not arrive whole: the sha256 of .* is another there"):
            Stage(board, str(tmp_path / "work")).stage(tmp_path / "model")
    assert not (tmp_path / "work" / "objects" / sha256_of(tmp_path / "model")).exists()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["objects"]


@contextmanager
def disk(folder: Path, kind: str, sftp: Path | None) -> Iterator[tuple[Board, Path]]:
    """A board with such a disk at the path."""
    place = folder / "disk"
    place.mkdir()
    private = Private(sftp=sftp, mounts=[(kind, place)])
    with private_board(folder / "board", private, workdir=str(place)) as config, SSHBoard(config) as board:
        yield board, place


@SFTP
@pytest.mark.system
def test_a_read_only_disk_is_no_full_one(sftp: Path | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("some")
    with disk(tmp_path, "ro", sftp) as (board, place):
        with pytest.raises(BoardError, match="Read-only file system: remount it writable, or name another `workdir`"):
            board.put(tmp_path / "file", f"{place}/file")
        for attempt in (lambda: Session(board).__enter__(), lambda: reserve(board, 60)):
            with pytest.raises(BoardError, match="remount it writable") as got:
                attempt()
            assert not isinstance(got.value, BoardFull)
        assert str(occupancy(board)) == "free"


@SFTP
@pytest.mark.system
def test_a_tiny_disk_is_named_and_left_clean(sftp: Path | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(300_000))
    with disk(tmp_path, "128k", sftp) as (board, place):
        with pytest.raises(BoardFull, match="its disk or quota is full: free space there"):
            board.put(tmp_path / "file", f"{place}/file")
        with pytest.raises(BoardFull, match="full"):
            Stage(board, str(place)).stage(tmp_path / "file")
        # the archive fits, beside its content it does not
        (tmp_path / "file").write_bytes(os.urandom(70_000))
        with pytest.raises(BoardFull, match="did not arrive whole"):
            Stage(board, str(place)).stage(tmp_path / "file")
        assert board.run(["ls", "-A", str(place), f"{place}/objects"], 10).stdout.split() == [
            f"{place}:", "objects", f"{place}/objects:",
        ]  # fmt: skip
        found = {finding.check: finding for finding in examine(board)}
        assert found["disk"].state == "failed" and "name another workdir" in found["disk"].todo


@SFTP
@pytest.mark.system
def test_no_room_for_the_runner_is_named(sftp: Path | None, tmp_path: Path) -> None:
    with disk(tmp_path, "16k", sftp) as (board, _), pytest.raises(BoardFull, match="its disk or quota is full"):
        Session(board).__enter__()


@SFTP
@pytest.mark.system
def test_a_folder_in_which_the_user_may_not_write(sftp: Path | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("some")
    with (
        private_board(tmp_path / "board", Private(sftp=sftp)) as config,
        SSHBoard(config) as board,
        pytest.raises(BoardError, match="Permission denied: its user may not write there"),
    ):
        board.put(tmp_path / "file", "/sys/hilnas-test")  # not even root


def old_python(version: Path) -> str:
    program = version / "bin" / "python"
    if not program.exists():
        pytest.skip(f"no Python {version.name} here")
    return str(program)


def not_ours(board: Board, attempt: str) -> str:
    """What is said of the board's Python."""
    with pytest.raises(BoardError) as got:
        {"check": lambda: list(examine(board)), "session": lambda: Session(board).__enter__(),
         "reserve": lambda: reserve(board, 60)}[attempt]()  # fmt: skip
    return str(got.value)


@pytest.mark.parametrize("attempt", ["check", "session", "reserve"])
@pytest.mark.parametrize("version", OLD, ids=lambda path: path.name)
def test_an_old_python_is_named_with_its_version(version: Path, attempt: str) -> None:
    with open_board(loopback("asyncssh", python=old_python(version))) as board:
        said = not_ours(board, attempt)
    assert said == (
        f"board bench: {board.config.python} is Python {version.name}: set `python` in boards.toml to one from 3.9 on"
    )


@pytest.mark.parametrize("attempt", ["check", "session", "reserve"])
def test_no_python_and_what_is_none(attempt: str, tmp_path: Path) -> None:
    with open_board(loopback("asyncssh", python="/no/such/python")) as board:
        assert "cannot run /no/such/python" in not_ours(board, attempt)
        assert "install Python 3.9 or newer there" in not_ours(board, attempt)
        board.config = replace(board.config, python="/bin/ls")
        said = not_ours(board, attempt)
        assert "/bin/ls" in said and "`python`" in said and "Traceback" not in said


def test_the_guard_is_read_whole_by_any_python() -> None:
    from hil.scripts import FROM_STDIN

    for version in OLD:
        if (version / "bin" / "python").exists():
            done = subprocess.run(
                [version / "bin" / "python", "-c", FROM_STDIN],
                input=b"no python at all",
                capture_output=True,
                check=False,
            )
            assert (done.returncode, done.stderr.decode()) == (79, f"Python {version.name}")
    done = subprocess.run([sys.executable, "-c", FROM_STDIN], input=b"print('in')", capture_output=True, check=True)
    assert done.stdout == b"in\n"


@pytest.mark.system
def test_files_in_the_home_are_no_modules_of_ours(tmp_path: Path) -> None:
    with private_board(tmp_path / "board", Private()) as config, open_board(config) as board:
        for name in ("json", "argparse", "hashlib", "select"):
            (tmp_path / "board" / "home" / f"{name}.py").write_text("raise SystemExit('a file of the home')")
        assert board.run(["sh", "-c", "ls json.py"], 10).stdout == "json.py\n"
        reserve(board, 60)
        release(board)
        with Session(board) as session:
            assert session.conditions.machine == os.uname().machine
