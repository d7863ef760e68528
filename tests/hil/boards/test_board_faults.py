"""Ways a board fails, each provoked for real: the error's type, and that its text says what to do."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import paramiko
import psutil
import pytest

from hil.boards.board import Board
from hil.boards.kinds import open_board, trust
from hil.boards.loopback import free_port, make_keys
from hil.boards.ssh import SSHBoard
from hil.boards.ssh_socket import open_socket
from hil.errors import HostKeyChanged, HostKeyUnknown, LinkLost, Unreachable, UsageError
from tests.hil.loopback_boards import SERVERS, loopback
from tests.hil.server_processes import connections, end, server_processes


def pointed_at(board: Board, **changes: object) -> SSHBoard:
    """An SSH board with the loopback's keys and some of its settings changed."""
    return SSHBoard(dataclasses.replace(board.config, kind="ssh", **changes))


def pin_all(board: Board, tmp_path: Path, port: int) -> str:
    line = Path(board.config.known_hosts).read_text().split(" ", 1)[1]
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {line}")
    return str(tmp_path / "known_hosts")


def test_a_changed_host_key_is_refused_and_explained(board: Board, tmp_path: Path) -> None:
    make_keys(tmp_path)
    other = (tmp_path / "host_key.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{board.config.port} {other}")
    changed = pointed_at(board, known_hosts=str(tmp_path / "known_hosts"))
    with pytest.raises(HostKeyChanged, match=r"SHA256:.*SHA256:.*remove the line.*hilnas board trust bench"):
        changed.run(["true"], 5)
    with pytest.raises(HostKeyChanged):
        list(trust(changed.config))
    assert (tmp_path / "known_hosts").read_text().count("\n") == 1


def test_an_unpinned_board_is_trusted_only_on_command(board: Board, tmp_path: Path) -> None:
    unpinned = pointed_at(board, known_hosts=str(tmp_path / "new" / "known_hosts"))
    with pytest.raises(HostKeyUnknown, match="hilnas board trust bench"):
        unpinned.run(["true"], 5)
    (pinned,) = trust(unpinned.config)
    assert pinned.fingerprint.startswith("SHA256:") and "ssh_host_ed25519_key.pub" in pinned.compare
    assert list(trust(unpinned.config)) == [pinned]
    assert unpinned.run(["echo", "in"], 5).stdout == "in\n"
    assert Path(unpinned.config.known_hosts).read_text().count("\n") == 1
    unpinned.close()


def test_a_closed_port_is_unreachable(board: Board, tmp_path: Path) -> None:
    port = free_port()
    closed = pointed_at(board, port=port, known_hosts=pin_all(board, tmp_path, port))
    with pytest.raises(Unreachable, match="refused"):
        closed.run(["true"], 5)


def test_a_name_that_does_not_resolve_is_unreachable(board: Board, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text(
        Path(board.config.known_hosts).read_text().replace("[127.0.0.1]", "[no-such-board.invalid]")
    )
    nowhere = pointed_at(board, host="no-such-board.invalid", known_hosts=str(tmp_path / "known_hosts"))
    with pytest.raises(Unreachable, match=r"no-such-board\.invalid"):
        nowhere.run(["true"], 5)


def test_a_listener_that_never_answers_is_unreachable(
    board: Board, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        mute = pointed_at(board, port=port, known_hosts=pin_all(board, tmp_path, port), connect_timeout_s=0.5)
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="accepts connections"):
            mute.run(["true"], 5)
        assert time.monotonic() - begin < 5
    assert "Traceback" not in capfd.readouterr().err


def test_a_key_that_is_missing_or_not_let_in(board: Board, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"private key .* does not exist"):
        pointed_at(board, key=str(tmp_path / "none")).run(["true"], 5)
    make_keys(tmp_path)
    with pytest.raises(Unreachable, match="authorized_keys"):
        pointed_at(board, key=str(tmp_path / "client_key")).run(["true"], 5)


def test_a_link_lost_during_a_command(fresh_board: Board) -> None:
    fresh_board.run(["true"], 10)
    before = server_processes(fresh_board)
    ending = threading.Timer(0.5, lambda: [end(process) for process in before[::-1]])
    ending.start()
    with pytest.raises(LinkLost, match="link was lost"):
        fresh_board.run(["sleep", "30"], 20)
    ending.join()
    with pytest.raises(Unreachable):
        fresh_board.run(["true"], 5)  # the server itself is gone


def test_a_lost_link_is_reported_as_one_even_before_paramiko_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = paramiko.Channel._unlink
    monkeypatch.setattr(paramiko.Channel, "_unlink", lambda channel: (unlink(channel), time.sleep(0.5)))
    with open_board(loopback("asyncssh")) as board:
        board.run(["true"], 10)
        before = server_processes(board)
        threading.Timer(0.5, lambda: [end(process) for process in before]).start()
        with pytest.raises(LinkLost, match="link was lost"):
            board.run(["sleep", "30"], 20)


def test_a_link_lost_while_what_was_read_is_acknowledged(fresh_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    process = fresh_board.start(["yes", 1000 * "y"])
    process.receive(10)

    def gone(*_: object) -> None:
        raise EOFError

    monkeypatch.setattr(process._channel.get_transport().packetizer, "send_message", gone)
    with pytest.raises(LinkLost):
        while True:
            process.receive(10)
    process.close()
    with pytest.raises(LinkLost):
        fresh_board.run(["true"], 10)


@pytest.mark.system
def test_the_next_call_after_a_lost_link_connects_anew() -> None:
    with open_board(loopback("sshd")) as board:
        board.run(["true"], 10)
        before = connections(board)
        threading.Timer(0.5, lambda: [end(process) for process in before]).start()
        with pytest.raises(LinkLost):
            board.run(["sleep", "30"], 20)
        assert board.run(["echo", "back"], 10).stdout == "back\n"


@pytest.mark.parametrize("server", SERVERS)
def test_nothing_is_left_when_we_are_killed(server: str) -> None:
    loopback(server)  # skips without sshd
    script = (
        "import sys; from hil.boards.config import BoardConfig; from hil.boards.kinds import open_board\n"
        f"board = open_board(BoardConfig(name='bench', kind='loopback', server='{server}'))\n"
        "board.run(['true'], 10); print(board.folder, board._guard.pid, flush=True); sys.stdin.read()"
    )
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=root, env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        folder, guard = client.stdout.readline().split()
        family = psutil.Process(int(guard)).children(recursive=True)
        assert family and Path(folder).is_dir()
        client.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=8)
    assert not alive
    deadline = time.monotonic() + 5
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(folder).exists()


def test_close_removes_the_server_and_its_folder(fresh_board: Board) -> None:
    folder, family = fresh_board.folder, server_processes(fresh_board)
    assert folder.stat().st_mode & 0o777 == 0o700
    fresh_board.close()
    fresh_board.close()
    assert not folder.exists()
    assert not psutil.wait_procs(family, timeout=5)[1]


@pytest.mark.parametrize("host", ["a" * 70, "lab..local", "nul\0"])
def test_what_is_no_host_name(board: Board, host: str) -> None:
    with pytest.raises(UsageError, match="is no name or address of a host: fix `host`"):
        open_socket(dataclasses.replace(board.config, host=host))
