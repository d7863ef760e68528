"""Accounts whose login shell prints, warns, refuses, or is none: each works, or is named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.boards.board import Board
from hil.boards.kinds import open_board
from hil.boards.ssh import SSHBoard
from hil.errors import BoardError, BoardTimeout, LinkLost
from hil.health import examine
from hil.measure import measure
from hil.reservation import occupancy
from hil.session import Session
from hil.store import Store
from tests.hil.boards.test_board_contract import eventually
from tests.hil.loopback_boards import add_job
from tests.hil.measuring_benches import QUICK
from tests.hil.private_servers import SFTP_SERVER, Private, private_board

pytestmark = pytest.mark.system

LOUD = """
echo 'Welcome to the lab!'
printf '{"done": true} and no newline at the end'
echo 'bash: warning: setlocale: LC_ALL: cannot change locale (C.UTF-8)' >&2
printf 'another warning' >&2
"""


@pytest.fixture(scope="module", params=["dropbear", "sshd"])
def loud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    private = Private(request.param, login_shell="/bin/bash", bashrc=LOUD)
    with private_board(tmp_path_factory.mktemp("loud"), private) as config, open_board(config) as board:
        yield board


def test_what_the_shell_prints_is_no_output_of_a_command(loud: Board) -> None:
    result = loud.run(["sh", "-c", "echo out; echo err >&2; exit 7"], 10)
    assert (result.exit_code, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert loud.run(["printf", "none"], 10).stdout == "none"


def test_what_the_shell_prints_is_no_line_of_a_process(loud: Board) -> None:
    process = loud.start(["sh", "-c", 'echo talk >&2; while read l; do echo "got $l"; done'])
    process.send("one")
    assert process.receive(10) == "got one"
    assert eventually(lambda: process.stderr_tail() == "talk\n")  # the server sends either stream first
    process.close()


def test_a_command_that_hangs_is_killed_although_the_shell_warned(loud: Board, tmp_path: Path) -> None:
    with pytest.raises(BoardTimeout, match="was killed"):
        loud.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60; true"], 2)
    pid = int((tmp_path / "pid").read_text())
    assert loud.run(["test", "-e", f"/proc/{pid}"], 10).exit_code == 1


def test_files_go_through_the_shell_where_sftp_begins_with_a_greeting(
    loud: Board, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 1000)
    with SSHBoard(loud.config) as board, caplog.at_level(logging.WARNING):
        for _ in range(2):
            board.put(tmp_path / "sent", str(tmp_path / "there"))
            board.get(str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("hil")]
    assert "files go through its shell, slower: " in said and "let it print nothing where it is not interactive" in said


def test_a_board_with_a_greeting_is_fit_to_measure_on(loud: Board, tmp_path: Path) -> None:
    assert str(occupancy(loud)) == "free"
    found = {finding.check: finding for finding in examine(loud)}
    assert found["neighbours"].state == found["identity"].state == found["runtime"].state == "ok"
    with Session(loud) as session, Store(tmp_path / "store.db") as store:
        done = list(measure(session, [add_job(tmp_path, 1)], QUICK, store))
    assert [measurement.status for measurement in done] == ["ok", "ok"]


def test_a_name_that_is_no_utf_8_arrives(loud: Board, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("some")
    loud.put(tmp_path / "file", f"{tmp_path}/there/caf\udce9")
    assert loud.run(["sh", "-c", 'cd "$1" && ls | od -An -tx1', "sh", f"{tmp_path}/there"], 10).stdout.split() == [
        "63",
        "61",
        "66",
        "e9",
        "0a",
    ]
    loud.get(f"{tmp_path}/there/caf\udce9", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "some"


@pytest.mark.parametrize("server", ["dropbear", "sshd"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"login_shell": "/usr/sbin/nologin"}, "This account is currently not available"),
        ({"login_shell": "/bin/false"}, "no message"),
        ({"key_options": 'command="echo backups only"'}, "backups only"),
    ],
    ids=["nologin", "false", "forced"],
)
def test_an_account_that_runs_no_command_is_named(
    server: str, settings: dict[str, str], said: str, tmp_path: Path
) -> None:
    private = Private(server, **settings)
    with private_board(tmp_path, private) as config, open_board(config) as board:
        with pytest.raises(BoardError, match=rf"login shell of bench runs no command .*{said}.*ordinary shell") as got:
            board.run(["true"], 10)
        assert not isinstance(got.value, LinkLost)
        process = board.start(["cat"])
        with pytest.raises(LinkLost, match=r"the login shell ended with status \d and ran no command"):
            process.receive(10)
        (tmp_path / "file").write_text("some")
        with pytest.raises(BoardError, match="runs no command"):
            SSHBoard(config).put(tmp_path / "file", str(tmp_path / "there"))


BROKEN_SFTP = {
    "nothing": "exec true",
    "waits for nothing": "head -c 9 >/dev/null; exit 1",
    "another protocol": "printf '\\0\\0\\0\\5\\144abcd'; cat >/dev/null",
    "short version": "printf '\\0\\0\\0\\2\\2a'; cat >/dev/null",
    "garbage after the version": "printf '\\0\\0\\0\\5\\2\\0\\0\\0\\3'; head -c 40 >/dev/null; cat /bin/sh -",
    "cut in a packet": "printf '\\0\\0\\0\\5\\2\\0\\0\\0\\3\\0\\0\\1\\0ab'",
    "text that is no UTF-8": "printf '\\0\\0\\0\\5\\2\\0\\0\\0\\3'; head -c 40 >/dev/null; "
    "printf '\\0\\0\\0\\24\\145\\0\\0\\0\\1\\0\\0\\0\\4\\0\\0\\0\\3\\377\\376\\375\\0\\0\\0\\0'; cat >/dev/null",
    "refuses everything": "printf '\\0\\0\\0\\5\\2\\0\\0\\0\\3'; head -c 40 >/dev/null; "
    "printf '\\0\\0\\0\\23\\145\\0\\0\\0\\1\\0\\0\\0\\4\\0\\0\\0\\2no\\0\\0\\0\\0'; cat >/dev/null",
}


@pytest.fixture(scope="module", params=["dropbear", "sshd"])
def broken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Board, Path]]:
    """A board whose SFTP server is a script, and that script."""
    folder = tmp_path_factory.mktemp("broken")
    script = folder / "sftp"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    with private_board(folder, Private(request.param, sftp=script)) as config, SSHBoard(config) as board:
        yield board, script


@pytest.mark.parametrize("kind", BROKEN_SFTP)
def test_an_sftp_server_that_is_broken_costs_no_file(broken: tuple[Board, Path], kind: str, tmp_path: Path) -> None:
    board, script = broken
    script.write_text(f"#!/bin/sh\n{BROKEN_SFTP[kind]}\n")
    (tmp_path / "sent").write_bytes(b"content" * 10_000)
    with SSHBoard(board.config) as other:
        other.put(tmp_path / "sent", str(tmp_path / "there"))
        other.get(str(tmp_path / "there"), tmp_path / "back")
        assert other.run(["echo", "well"], 10).stdout == "well\n"
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"sent", "there", "back"}


def test_an_sftp_server_without_the_rename_extension_copies_all_the_same(tmp_path: Path) -> None:
    script = tmp_path / "sftp"
    script.write_text(f"#!/bin/sh\nexec {SFTP_SERVER} -P posix-rename\n")
    script.chmod(0o755)
    with private_board(tmp_path / "board", Private("sshd", sftp=script)) as config, SSHBoard(config) as board:
        for text in ("old", "new"):
            (tmp_path / "sent").write_text(text)
            board.put(tmp_path / "sent", str(tmp_path / "there"))
    assert (tmp_path / "there").read_text() == "new"
    assert not (tmp_path / "there.part").exists()
