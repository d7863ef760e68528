"""Whatever paramiko, its SFTP client and the socket raise becomes one of our errors, in one line."""

from __future__ import annotations

import inspect
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm

from hil.boards.board import Board
from hil.boards.kinds import open_board
from hil.boards.ssh import SSHBoard
from hil.boards.ssh_errors import as_ours, raised, reason
from hil.errors import BoardBusy, BoardError, BoardTimeout, HilError, LinkLost
from tests.hil.loopback_boards import loopback

PLACES = 8
PARAMIKO = sorted(
    {
        kind
        for _, kind in inspect.getmembers(paramiko.ssh_exception, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == "paramiko.ssh_exception"
    },
    key=lambda kind: kind.__name__,
)
OTHERS = [
    paramiko.SFTPError("Garbage packet received"),
    EOFError(),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError("timed out"),
    OSError("Socket is closed"),
    struct.error("unpack requires a buffer of 4 bytes"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ValueError("not enough values"),
    IndexError("index out of range"),
    KeyError("x"),
    AttributeError("'NoneType' object has no attribute 'time'"),
    InvalidTag(),
    UnsupportedAlgorithm("Blowfish"),
]


def made(kind: type[Exception]) -> Exception:
    """An instance, whatever its constructor takes: the real ones need keys of hosts and the like."""
    error = kind.__new__(kind)
    Exception.__init__(error, f"a {kind.__name__}\nin two lines")
    vars(error).update(code=1, hostname="h", key=None, expected_key=None, command="c", errors={}, error="e")
    error.__class__ = type(kind.__name__, (kind,), {"__str__": lambda self: f"a {kind.__name__}\nin two lines"})
    return error


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("error", [*map(made, PARAMIKO), *OTHERS], ids=lambda error: type(error).__name__)
def test_each_exception_is_ours_and_one_line(error: Exception, linked: bool) -> None:
    assert isinstance(error, raised())
    ours = as_ours("bench", "starting ls", error, linked=linked)
    assert isinstance(ours, BoardError) and "\n" not in str(ours)
    assert "bench" in str(ours) and "starting ls" in str(ours)
    assert ("cable" in str(ours)) == isinstance(ours, LinkLost)
    assert not (linked and isinstance(ours, LinkLost))


def test_what_it_says_follows_from_the_cause() -> None:
    busy = as_ours("b", "starting ls", paramiko.ChannelException(4, "Resource shortage"), linked=True)
    assert isinstance(busy, BoardBusy) and "MaxSessions" in str(busy)
    late = as_ours("b", "starting ls", paramiko.SSHException("Timeout opening channel."), linked=True)
    assert isinstance(late, BoardTimeout)
    assert "see its SSH server's log" in str(as_ours("b", "x", paramiko.SSHException("Channel closed."), linked=True))
    assert "(Connection reset by peer)" in str(as_ours("b", "x", OTHERS[2], linked=False))
    assert reason(EOFError()) == "EOFError"


def test_our_own_errors_are_none_of_them() -> None:
    assert not issubclass(HilError, raised())


class Disturbed:
    """A proxy that passes so many bytes of the server on, then damages one, or all, and ends soon afterwards."""

    def __init__(self, port: int, at: int, how: str) -> None:
        self._port, self._at, self._how = port, at, how
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            client, _ = self._listening.accept()
            with client, socket.create_connection(("127.0.0.1", self._port)) as server:
                threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
                passed = 0
                while data := server.recv(4096):
                    if passed + len(data) > self._at:
                        client.sendall(self._damaged(data, self._at - passed))
                        time.sleep(0.1)
                        break
                    client.sendall(data)
                    passed += len(data)
                if self._how == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)

    def _damaged(self, data: bytes, at: int) -> bytes:
        if self._how == "flip":
            return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        if self._how == "garbage":
            return data[:at] + random.Random(at).randbytes(5000)
        return data[:at]  # "cut", "reset"

    def close(self) -> None:
        self._listening.close()
        self._thread.join(timeout=5)


@contextmanager
def disturbed(board: Board, folder: Path, at: int, how: str) -> Iterator[SSHBoard]:
    proxy = Disturbed(board.config.port, at, how)
    line = Path(board.config.known_hosts).read_text().split(" ", 1)[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{proxy.port} {line}")
    settings = replace(board.config, kind="ssh", port=proxy.port, known_hosts=str(folder / "known_hosts"))
    try:
        with SSHBoard(replace(settings, connect_timeout_s=1.0)) as opened:
            yield opened
    finally:
        proxy.close()


@pytest.fixture(scope="module")
def machine() -> Iterator[Board]:
    with open_board(loopback("asyncssh")) as board:
        yield board


@pytest.mark.parametrize("how", ["flip", "garbage", "cut", "reset"])
def test_a_disturbed_connection_raises_nothing_else(machine: Board, tmp_path: Path, how: str) -> None:
    """From the first byte of the greeting on: places of each kind in what the server sends."""
    (tmp_path / "file").write_bytes(bytes(20_000))
    failures = 0
    for at in sorted(random.Random(how).sample(range(9000), PLACES)):
        with disturbed(machine, tmp_path, at, how) as opened:
            try:
                opened.run(["printf", "%5000s", "x"], 5)
                opened.put(tmp_path / "file", str(tmp_path / "there"))
                opened.start(["cat"]).receive(0.2)
            except HilError as error:
                failures += 1
                assert "\n" not in str(error) and "bench" in str(error)
    assert failures == PLACES  # at the latest, `cat` says nothing
