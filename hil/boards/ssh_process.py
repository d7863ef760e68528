"""What runs in an SSH channel: a command that ends, or a process that reads and writes lines."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from hil.boards.ssh_errors import raised
from hil.errors import BoardTimeout, LinkLost

POLL_S = 0.05  # how often stderr is emptied while stdout is silent; data on stdout wakes us at once
STDERR_TAIL_BYTES = 4096
SEND_TIMEOUT_S = 15.0
END_TIMEOUT_S = 2.0
BLOCK_BYTES = 32768  # what every server accepts in one piece
LONGEST_COMMAND = 4096  # dropbear ends the whole connection above 9000 bytes

# A login shell may print whatever it likes on both streams first: the mark is where the command's own output begins.
# OpenSSH signals nothing for a client logged in as root, and closing a channel kills nothing: to be able to
# kill a command we must know its process id. sshd makes each command the leader of its own process group.
MARKED = ("sh", "-c", 'echo "$0"; echo "$0 $$" >&2; exec "$@"')

# $1: a process. Where it leads no group of its own (dropbear), its descendants go one by one, stopped before they are
# listed, so that none forks meanwhile.
KILL = """
end() {
    kill -STOP "$1"
    for f in $(grep -ls "^PPid:[[:space:]]*$1\\$" /proc/[0-9]*/status); do f=${f#/proc/}; end "${f%/status}"; done
    kill -9 "$1"
}
kill -9 "-$1" || end "$1"
"""


def new_mark() -> str:
    return f"hilnas-{uuid.uuid4().hex[:12]}"


def marked(argv: Sequence[str], mark: str) -> bytes:
    """The command line; no login shell stays in between."""
    return encoded("exec " + shlex.join((*MARKED, mark, *argv)))


def typed(argv: Sequence[str], mark: str) -> bytes:
    """What a shell reads on its stdin to run a command that is too long for a command line."""
    return encoded(f'echo {mark}; echo "{mark} $$" >&2; exec {shlex.join(argv)} </dev/null\n')


def encoded(text: str) -> bytes:
    """UTF-8, and the names of files that are none as they are."""
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Output:
    """What a channel brought until its command ended.

    Attributes:
        exit_code: -1: the link was lost, or a signal ended it.
        before: what the login shell printed on either stream before the command began.
        began: whether the command began at all.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    before: str
    began: bool


def collect(channel: Any, mark: str, stdin: BinaryIO | None, deadline: float, stderr: bytearray) -> Output:
    """Of a command that ends, after it was given `stdin`; `stderr` is filled on the way.

    Raises TimeoutError past the deadline (time.monotonic()).
    """
    stdout = bytearray()
    if stdin is not None:
        _feed(channel, stdin, deadline, stderr)
    with suppress(OSError):  # closed already by a command that ended
        channel.shutdown_write()
    channel.settimeout(POLL_S)
    while True:
        with suppress(TimeoutError):
            data = channel.recv(65536)
            stdout += data
            if not data:
                break
        _drain_stderr(channel, stderr)
        if time.monotonic() > deadline:
            raise TimeoutError
    while not channel.status_event.wait(POLL_S):  # a command may close its stdout long before it ends
        _drain_stderr(channel, stderr)
        if time.monotonic() > deadline:
            raise TimeoutError
    with suppress(TimeoutError):
        while data := channel.recv_stderr(65536):
            stderr += data
    out, err = split_stdout(bytes(stdout), mark), split_stderr(bytes(stderr), mark)
    before = b"\n".join(filter(None, (out.before, err.before))).decode("utf-8", "replace")
    return Output(int(channel.exit_status), out.after, err.after, before, out.began)


def _feed(channel: Any, stdin: BinaryIO, deadline: float, stderr: bytearray) -> None:
    """Until its end, or until the command ends without having read it all."""
    channel.settimeout(POLL_S)
    while block := stdin.read(BLOCK_BYTES):
        while block:
            try:
                block = block[channel.send(block) :]
            except TimeoutError:
                _drain_stderr(channel, stderr)
                if channel.status_event.is_set():
                    return
                if time.monotonic() > deadline:
                    raise
            except OSError:
                if channel.closed:
                    return
                raise


@dataclass(frozen=True)
class Split:
    """A stream at its mark; without one, all of it stands before.

    Attributes:
        pid: the command's process id, which stderr shows.
    """

    before: bytes
    after: bytes
    began: bool
    pid: int | None = None


def split_stdout(data: bytes, mark: str) -> Split:
    before, found, after = data.partition(f"{mark}\n".encode())
    return Split(before, after, bool(found))


def split_stderr(data: bytes, mark: str) -> Split:
    before, found, after = data.partition(f"{mark} ".encode())
    pid, newline, rest = after.partition(b"\n")
    if not (found and newline and pid.isdigit()):
        return Split(data, b"", began=False)
    return Split(before, rest, began=True, pid=int(pid))


def is_up(transport: Any) -> bool:
    """Whether the link is there. paramiko closes the channels of a lost one before it calls it inactive."""
    return bool(transport.is_active()) and not isinstance(transport.saved_exception, (EOFError, OSError))


def close_channel(channel: Any) -> None:
    """Never raises: a link that was just lost lets no channel close properly."""
    with suppress(Exception):
        channel.close()


def end_channel(channel: Any) -> None:
    """Closes it when its process has ended, or soon. Never raises.

    dropbear closes a channel that was opened just when the process of another, closed one ends.
    """
    with suppress(Exception):
        channel.shutdown_write()
        channel.settimeout(POLL_S)
        deadline = time.monotonic() + END_TIMEOUT_S
        while not channel.status_event.is_set() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                if not channel.recv(65536):
                    channel.status_event.wait(POLL_S)
    close_channel(channel)


def _drain_stderr(channel: Any, into: bytearray) -> None:
    """Both streams share one window: unread stderr would in the end stop stdout."""
    while channel.recv_stderr_ready():
        into += channel.recv_stderr(65536)


class SSHProcess:
    """A process on the board with a line-based stdin and stdout."""

    def __init__(self, channel: Any, mark: str, label: str, kill: Callable[[int], None]) -> None:
        self._channel = channel
        self._mark = mark
        self._label = label
        self._kill = kill
        self._pid: int | None = None
        self._began = False
        self._stdout = b""
        self._stderr = bytearray()

    def send(self, line: str) -> None:
        self._channel.settimeout(SEND_TIMEOUT_S)
        try:
            self._channel.sendall(line.encode() + b"\n")
        except TimeoutError as error:
            raise BoardTimeout(f"{self._label} takes no input for {SEND_TIMEOUT_S:g} s: restart the board") from error
        except raised() as error:
            raise self._ended() from error

    def receive(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while not (self._began and b"\n" in self._stdout):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise BoardTimeout(f"{self._label} sent nothing for {timeout_s:g} s: {self._tail_line()}")
            self._channel.settimeout(min(POLL_S, remaining))
            try:
                data = self._channel.recv(65536)
            except TimeoutError:
                pass
            except raised() as error:  # reading a channel writes too, to acknowledge
                raise self._ended() from error
            else:
                if not data:
                    raise self._ended()
                self._stdout += data
                self._look_for_mark()
            self._keep_stderr()
        line, _, self._stdout = self._stdout.partition(b"\n")
        return line.decode("utf-8", "replace")

    def alive(self) -> bool:
        return not (self._channel.closed or self._channel.eof_received) and is_up(self._channel.get_transport())

    def stderr_tail(self) -> str:
        self._keep_stderr()
        return self._stderr.decode("utf-8", "replace")

    def close(self) -> None:
        with suppress(Exception):
            self._channel.shutdown_write()
            if not self._channel.status_event.wait(END_TIMEOUT_S):
                self._keep_stderr()
                if self._pid is not None:
                    self._kill(self._pid)
        close_channel(self._channel)

    def _look_for_mark(self) -> None:
        if not self._began:
            split = split_stdout(self._stdout, self._mark)
            self._began, self._stdout = split.began, split.after if split.began else split.before

    def _keep_stderr(self) -> None:
        with suppress(*raised()):  # the next read of stdout reports a lost link
            _drain_stderr(self._channel, self._stderr)
        if self._pid is None:
            split = split_stderr(bytes(self._stderr), self._mark)
            if split.began:
                self._pid, self._stderr = split.pid, bytearray(split.after)
        del self._stderr[:-STDERR_TAIL_BYTES]

    def _tail_line(self) -> str:
        said = self.stderr_tail().strip() or ("" if self._began else self._stdout.decode("utf-8", "replace").strip())
        lines = said.splitlines()
        return f"its last line: {lines[-1][:300]}" if lines else "it left no message"

    def _ended(self) -> LinkLost:
        self._channel.status_event.wait(END_TIMEOUT_S)
        status = int(self._channel.exit_status)
        how = f"it ended with status {status}"
        if status == -1:  # paramiko leaves out the message that a signal ended it
            how = "it was killed by a signal" if is_up(self._channel.get_transport()) else "the link was lost"
        elif not self._began:
            how = f"the login shell ended with status {status} and ran no command"
        return LinkLost(f"{self._label}: {how}; {self._tail_line()}")
