"""What every board with a machine promises, whatever its kind."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.boards.board import Board
from hil.boards.kinds import open_board
from hil.errors import BoardError, BoardFull, BoardTimeout, LinkLost, UsageError
from tests.hil.loopback_boards import SERVERS
from tests.hil.measuring_benches import SMALL_SERVERS, settings_of

MACHINES = [
    *SERVERS,
    pytest.param("asyncssh-by-shell", id="loopback-asyncssh-by-shell"),
    *SMALL_SERVERS,
    pytest.param("labgrid", id="labgrid"),
    pytest.param("qemu", id="qemu", marks=pytest.mark.qemu),
]
ODD = ["a b", "c'd", 'e"f', "g\nh", "$HOME", "`id`", "*", "", "--", "ünï", "\\n"]


@pytest.fixture(scope="module", params=MACHINES)
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    server, by_shell, _ = request.param.partition("-by-shell")
    with settings_of(server, tmp_path_factory.mktemp("machine")) as config, open_board(config) as opened:
        if by_shell:
            opened._without_sftp = True  # as where none is installed: real servers without one are below
        yield opened


@pytest.fixture
def there(board: Board) -> Iterator[str]:
    """An empty folder on the board."""
    path = board.run(["mktemp", "-d"], 10).stdout.strip()
    yield path
    board.run(["rm", "-r", path], 10)


def names(board: Board, folder: str) -> list[str]:
    return board.run(["ls", "-A", folder], 10).stdout.splitlines()


def ended(board: Board, pid: int) -> bool:
    return board.run(["test", "-e", f"/proc/{pid}"], 10).exit_code == 1


def test_arguments_arrive_as_they_are(board: Board) -> None:
    result = board.run(["printf", "%s|", *ODD], 10)
    assert result.stdout == "".join(f"{word}|" for word in ODD)
    assert result.exit_code == 0


def test_exit_code_and_streams_stay_apart(board: Board) -> None:
    result = board.run(["sh", "-c", "echo out; echo err >&2; exit 7"], 10)
    assert (result.exit_code, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_a_missing_program_is_an_exit_code(board: Board) -> None:
    assert board.run(["no-such-program"], 10).exit_code == 127


def test_much_output_on_both_streams_does_not_block(board: Board) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' e >&2; head -c 3000000 /dev/zero | tr '\\0' o"
    result = board.run(["sh", "-c", script], 30)
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)


def test_a_command_of_any_length_arrives(board: Board) -> None:
    words = [f"{number:06d}'\\" for number in range(15_000)]
    result = board.run(["sh", "-c", 'echo "$#"; cat; printf "%s|" "$@"', "sh", *words], 20)
    assert result.stdout == "15000\n" + "".join(f"{word}|" for word in words)
    assert board.run(["no-such-program", *words], 10).exit_code == 127


def test_stdin_arrives_whole_and_ends(board: Board) -> None:
    text = "".join(f"line {number} ü\n" for number in range(100_000))
    assert board.run(["cat"], 30, text.encode()).stdout == text
    assert board.run(["cat"], 10).stdout == ""


def test_a_command_may_leave_its_stdin_unread(board: Board) -> None:
    for exit_code in (0, 3):
        done = board.run(["sh", "-c", f"echo enough; exit {exit_code}"], 20, bytes(5_000_000))
        assert (done.exit_code, done.stdout) == (exit_code, "enough\n")


def test_past_its_deadline_a_command_is_killed(board: Board, there: str) -> None:
    begin = time.monotonic()
    with pytest.raises(BoardTimeout, match=r"within 3 s"):
        board.run(["sh", "-c", f"echo $$ > {there}/pid; sleep 60; true"], 3)
    assert time.monotonic() - begin < 30
    pid = int(board.run(["cat", f"{there}/pid"], 10).stdout)
    assert eventually(lambda: ended(board, pid))
    assert board.run(["echo", "well"], 10).stdout == "well\n"


def test_past_its_deadline_what_a_command_started_is_killed_too(board: Board, there: str) -> None:
    script = f"sleep 60 & echo $! > {there}/pid; (sleep 61; true) & wait"
    with pytest.raises(BoardTimeout, match="was killed"):
        board.run(["sh", "-c", script], 3)
    pid = int(board.run(["cat", f"{there}/pid"], 10).stdout)
    assert eventually(lambda: ended(board, pid))
    assert eventually(lambda: not board.run(["sh", "-c", "grep -al '^sleep.61' /proc/[0-9]*/cmdline"], 10).stdout)


def test_a_command_killed_by_a_signal_is_no_result(board: Board) -> None:
    with pytest.raises(LinkLost, match="signal"):
        board.run(["sh", "-c", "kill -9 $$"], 10)


@pytest.mark.parametrize("size", [0, 1, 32768, 1_000_003])
def test_put_and_get_keep_every_byte(board: Board, there: str, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "sent").write_bytes(data)
    remote = f"{there}/odd name'"
    board.put(tmp_path / "sent", remote)
    assert board.run(["sha256sum", remote], 10).stdout.lstrip("\\")[:64] == hashlib.sha256(data).hexdigest()
    board.get(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert names(board, there) == ["odd name'"]


def test_put_replaces_what_was_there(board: Board, there: str, tmp_path: Path) -> None:
    for text in ("old and longer", "new"):
        (tmp_path / "file").write_text(text)
        board.put(tmp_path / "file", f"{there}/file")
    assert board.run(["cat", f"{there}/file"], 10).stdout == "new"


def test_a_full_disk_is_named_and_leaves_nothing(board: Board, there: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(100_000))
    # every write to /dev/full says: no space left on device
    assert board.run(["ln", "-s", "/dev/full", f"{there}/full.part"], 10).exit_code == 0
    with pytest.raises(BoardFull, match="full"):
        board.put(tmp_path / "model", f"{there}/full")
    assert names(board, there) == []


def test_missing_files_are_named(board: Board, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="nothing-here"):
        board.get("/nothing-here", tmp_path / "x")
    with pytest.raises(UsageError, match="nothing-local"):
        board.put(tmp_path / "nothing-local", "/tmp/x")
    (tmp_path / "some").write_text("")
    with pytest.raises(BoardError, match="no folder"):
        board.put(tmp_path / "some", "/no-such-folder/x")
    assert not list(tmp_path.glob("*.part"))


def test_a_process_speaks_in_lines(board: Board) -> None:
    process = board.start(["sh", "-c", 'echo talk >&2; while read l; do echo "got $l"; done'])
    for word in ("one", "two words"):
        process.send(word)
        assert process.receive(10) == f"got {word}"
    with pytest.raises(BoardTimeout):
        process.receive(0.2)
    assert eventually(lambda: process.stderr_tail() == "talk\n")  # the server sends either stream first
    assert process.alive()
    process.close()
    assert not process.alive()


def test_the_end_of_a_process_is_reported_with_its_last_line(board: Board) -> None:
    process = board.start(["sh", "-c", "echo why >&2; exit 3"])
    with pytest.raises(LinkLost, match=r"status 3; its last line: why"):
        process.receive(10)
    process.close()


def test_close_kills_a_process_that_ignores_the_end_of_stdin(board: Board) -> None:
    process = board.start(["sh", "-c", "echo $$; exec sleep 60"])
    pid = int(process.receive(10))
    process.close()
    assert eventually(lambda: ended(board, pid))


def eventually(holds, seconds: float = 8.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False
