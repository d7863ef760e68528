"""What runs in an SSH channel: a command that ends, or a process that reads and writes lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hil.errors import BoardTimeout, LinkLost

POLL_S = 0.05  # how often stderr is emptied while stdout is silent; data on stdout wakes us at once
STDERR_TAIL_BYTES = 4096
SEND_TIMEOUT_S = 15.0
END_TIMEOUT_S = 2.0


# OpenSSH signals nothing for a client logged in as root, and closing a channel kills nothing: to be able to
# kill a command we must know its process id. sshd makes each command the leader of its own process group.
SAY_PID = ("sh", "-c", 'echo $$ >&2; exec "$@"', "sh")


def collect(channel: Any, deadline: float, stderr: bytearray) -> tuple[int, str]:
    """(exit status, stdout) of a command that ends; stderr is filled on the way. -1 is a lost link.

    Raises TimeoutError past the deadline (time.monotonic()).
    """
    stdout = bytearray()
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
    return int(channel.exit_status), stdout.decode("utf-8", "replace")


def split_pid(stderr: bytes) -> tuple[int | None, bytes]:
    """The process id that SAY_PID put in front of stderr, and the rest. None while the line is not there."""
    line, newline, rest = stderr.partition(b"\n")
    return (int(line), rest) if newline and line.isdigit() else (None, stderr)


def is_up(transport: Any) -> bool:
    """Whether the link is there. paramiko closes the channels of a lost one before it calls it inactive."""
    return bool(transport.is_active()) and not isinstance(transport.saved_exception, (EOFError, OSError))


def close_channel(channel: Any) -> None:
    """Never raises: a link that was just lost lets no channel close properly."""
    with suppress(Exception):
        channel.close()


def _drain_stderr(channel: Any, into: bytearray) -> None:
    """Both streams share one window: unread stderr would in the end stop stdout."""
    while channel.recv_stderr_ready():
        into += channel.recv_stderr(65536)


class SSHProcess:
    """A process on the board with a line-based stdin and stdout."""

    def __init__(self, channel: Any, label: str, kill: Callable[[int], None]) -> None:
        self._channel = channel
        self._label = label
        self._kill = kill
        self._pid: int | None = None
        self._stdout = b""
        self._stderr = bytearray()

    def send(self, line: str) -> None:
        self._channel.settimeout(SEND_TIMEOUT_S)
        try:
            self._channel.sendall(line.encode() + b"\n")
        except TimeoutError as error:
            raise BoardTimeout(f"{self._label} takes no input for {SEND_TIMEOUT_S:g} s: restart the board") from error
        except (OSError, EOFError) as error:  # EOFError: paramiko's error for a closed socket
            raise self._ended() from error

    def receive(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._stdout:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise BoardTimeout(f"{self._label} sent nothing for {timeout_s:g} s: {self._tail_line()}")
            self._channel.settimeout(min(POLL_S, remaining))
            try:
                data = self._channel.recv(65536)
            except TimeoutError:
                pass
            except (OSError, EOFError) as error:  # reading a channel writes too, to acknowledge
                raise self._ended() from error
            else:
                if not data:
                    raise self._ended()
                self._stdout += data
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

    def _keep_stderr(self) -> None:
        with suppress(OSError, EOFError):  # the next read of stdout reports a lost link
            _drain_stderr(self._channel, self._stderr)
        if self._pid is None:
            self._pid, rest = split_pid(bytes(self._stderr))
            self._stderr = bytearray(rest)
        del self._stderr[:-STDERR_TAIL_BYTES]

    def _tail_line(self) -> str:
        lines = self.stderr_tail().strip().splitlines()
        return f"its last line: {lines[-1][:300]}" if lines else "it left no message"

    def _ended(self) -> LinkLost:
        self._channel.status_event.wait(END_TIMEOUT_S)
        status = int(self._channel.exit_status)
        how = f"it ended with status {status}"
        if status == -1:  # paramiko leaves out the message that a signal ended it
            how = "it was killed by a signal" if is_up(self._channel.get_transport()) else "the link was lost"
        return LinkLost(f"{self._label}: {how}; {self._tail_line()}")
