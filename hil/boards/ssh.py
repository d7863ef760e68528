"""A board behind SSH, with paramiko.

Every wait has its own deadline: a TCP connect that succeeds is no proof of life. An exit status of -1 means
that the link was lost, never that the command failed.
"""

from __future__ import annotations

import io
import logging
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from hil.boards.board import CommandResult
from hil.boards.config import BoardConfig
from hil.boards.refusal import last_line
from hil.boards.ssh_connection import CHANNEL_TIMEOUT_S, connect
from hil.boards.ssh_errors import as_ours, lost, raised, reason
from hil.boards.ssh_files import ShellFiles, get_by_sftp, put_by_sftp
from hil.boards.ssh_process import (
    KILL,
    LONGEST_COMMAND,
    Output,
    SSHProcess,
    close_channel,
    collect,
    end_channel,
    is_up,
    marked,
    new_mark,
    split_stderr,
    typed,
)
from hil.errors import BoardError, BoardTimeout, HilError, LinkLost, UsageError

TRANSFER_TIMEOUT_S = 60.0  # plus a second for every 100 KB: a slow link is no fault
MOST_BYTES = 1 << 30  # of a file whose size nobody said
KILL_TIMEOUT_S = 5.0
SETTLE_S = 0.2  # until paramiko has noticed that the connection went with the channel

logger = logging.getLogger(__name__)


class SSHBoard:
    """Connects at the first call, and anew at the first call after a lost link. Not for several threads."""

    def __init__(self, config: BoardConfig) -> None:
        self.name = config.name
        self.config = config
        self._client: Any = None
        self._sftp: Any = None
        self._without_sftp = False  # its server has none, or none that can be used

    def run(self, argv: Sequence[str], timeout_s: float, stdin: bytes = b"") -> CommandResult:
        output = self._converse(argv, timeout_s, io.BytesIO(stdin) if stdin else None)
        stdout, stderr = (stream.decode("utf-8", "replace") for stream in (output.stdout, output.stderr))
        return CommandResult(tuple(argv), output.exit_code, stdout, stderr)

    def start(self, argv: Sequence[str]) -> SSHProcess:
        mark = new_mark()
        channel = self._execute(argv, marked(argv, mark))
        return SSHProcess(channel, mark, f"board {self.name}: {_short(argv)}", self._kill)

    def _converse(self, argv: Sequence[str], timeout_s: float, stdin: BinaryIO | None) -> Output:
        """A command from its first byte of stdin to its end."""
        mark = new_mark()
        line = marked(argv, mark)
        if len(line) > LONGEST_COMMAND:
            if stdin is not None:
                raise UsageError(f"board {self.name}: {_short(argv)} is too long for a command with stdin")
            line, stdin = b"exec sh", io.BytesIO(typed(argv, mark))
        channel = self._execute(argv, line)
        raw_stderr = bytearray()
        try:
            output = collect(channel, mark, stdin, time.monotonic() + timeout_s, raw_stderr)
        except TimeoutError as error:
            overdue = self._overdue(argv, timeout_s, split_stderr(bytes(raw_stderr), mark).pid)
            end_channel(channel)
            raise overdue from error
        except raised() as error:
            raise self._told(_short(argv), error) from error
        finally:
            close_channel(channel)
        if output.exit_code == -1 and not self._connected():
            raise lost(self.name, _short(argv))
        if not output.began:
            raise BoardError(
                f"board {self.name}: the login shell of {self.config.user} runs no command (exit {output.exit_code}); "
                f"it printed: {last_line(output.before)}: give that user an ordinary shell (/bin/sh), without a forced "
                "command, and see its start-up files"
            )
        if output.exit_code == -1:  # paramiko drops the server's message about the signal
            raise LinkLost(f"board {self.name}: {_short(argv)} was killed there by a signal: see `dmesg`")
        return output

    def _overdue(self, argv: Sequence[str], timeout_s: float, pid: int | None) -> BoardTimeout:
        """Kills what did not end in time."""
        if pid is not None:
            self._kill(pid)
        what = "was killed" if pid is not None else "may still run there"  # its process id never arrived
        return BoardTimeout(
            f"board {self.name}: {_short(argv)} did not end within {timeout_s:g} s and {what}: "
            "give it longer, or look at the board"
        )

    def _kill(self, pid: int) -> None:
        """Kills a process and its descendants, if the board still listens. Never raises a BoardError."""
        with suppress(BoardError):
            if self._connected():
                argv = ["sh", "-c", KILL, "sh", str(pid)]
                channel = self._execute(argv, marked(argv, new_mark()))
                channel.status_event.wait(KILL_TIMEOUT_S)
                close_channel(channel)

    def put(self, local: Path, remote: str) -> None:
        local = Path(local)
        if not local.is_file():
            raise UsageError(f"{local}: no such file: nothing to copy to board {self.name}")
        size = local.stat().st_size
        with self._transfer(f"copying {local} to {remote}", size) as sftp:
            refused = None if sftp is None else self._refused(lambda: put_by_sftp(sftp, local, remote))
        if sftp is None or refused:
            self._through_shell().put(local, remote, _transfer_s(size))
            self._give_up_sftp(refused)

    def get(self, remote: str, local: Path) -> None:
        local = Path(local)
        taken: list[bytes] = []
        with self._transfer(f"copying {remote}", MOST_BYTES) as sftp:
            refused = None if sftp is None else self._refused(lambda: taken.append(get_by_sftp(sftp, remote)))
        if not taken:
            taken = [self._through_shell().get(remote, _transfer_s(MOST_BYTES))]
            self._give_up_sftp(refused)
        part = local.with_name(f"{local.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.write_bytes(taken[0])
            part.replace(local)
        except OSError as error:
            raise UsageError(f"{local}: {reason(error)}: name a file that can be written") from error
        finally:
            part.unlink(missing_ok=True)

    def _refused(self, copy: Callable[[], None]) -> str:
        """Why the SFTP server does not do it; empty: it did. A lost link is not its refusal."""
        try:
            copy()
        except raised() as error:
            if not self._still_connected():
                raise
            return reason(error)
        return ""

    def _give_up_sftp(self, refused: str | None) -> None:
        """A shell did what SFTP refused."""
        if refused:
            self._shell_copies(f"its server refuses: {refused}", "see its SSH server's log")

    def _shell_copies(self, why: str, todo: str) -> None:
        self._without_sftp = True
        logger.warning("board %s: no SFTP (%s), files go through its shell, slower: %s", self.name, why, todo)

    def close(self) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        client, self._client, self._sftp = self._client, None, None
        if client is not None:
            client.close()

    def __enter__(self) -> SSHBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> bool:
        transport = self._client.get_transport() if self._client is not None else None
        return transport is not None and is_up(transport)

    def _transport(self) -> Any:
        if not self._connected():
            self.disconnect()
            self._client = connect(self.config)
        return self._client.get_transport()

    def _through_shell(self) -> ShellFiles:
        return ShellFiles(self._converse, self.name, self.config.python or "python3")

    def _execute(self, argv: Sequence[str], line: bytes) -> Any:
        """The channel in which the board's shell runs `line`, for `argv`."""
        if not argv or any("\0" in word for word in argv):
            raise UsageError(f"board {self.name}: a command is at least one word, without NUL")
        with self._watched(f"starting {_short(argv)}", CHANNEL_TIMEOUT_S):
            try:
                channel = self._transport().open_session(timeout=CHANNEL_TIMEOUT_S)
                channel.exec_command(line)
            except EOFError:  # the connection's, no channel's: paramiko may not have noticed yet
                self._abort()
                raise
        return channel

    @contextmanager
    def _transfer(self, doing: str, size_bytes: int) -> Iterator[Any]:
        """An SFTP client; None where files have to go through a shell."""
        with self._watched(doing, _transfer_s(size_bytes)):
            transport = self._transport()
            if not self._without_sftp and (self._sftp is None or self._sftp.get_channel().closed):
                self._sftp = self._open_sftp(transport)
            yield None if self._without_sftp else self._sftp

    def _open_sftp(self, transport: Any) -> Any:
        import paramiko

        channel = transport.open_session(timeout=CHANNEL_TIMEOUT_S)
        try:
            channel.settimeout(CHANNEL_TIMEOUT_S)  # of silence
            channel.invoke_subsystem("sftp")
            return paramiko.SFTPClient(channel)
        except raised() as error:
            if not self._still_connected():
                raise
            end_channel(channel)
            if isinstance(error, paramiko.SFTPError):
                todo = "its login shell prints before SFTP begins: let it print nothing where it is not interactive"
            else:
                todo = "install an SFTP server there (openssh-sftp-server) to copy faster"
            self._shell_copies(reason(error), todo)
            return None

    @contextmanager
    def _watched(self, doing: str, seconds: float) -> Iterator[None]:
        """paramiko waits for replies without end; past the deadline the connection is cut under it."""
        fired = threading.Event()

        def cut() -> None:
            fired.set()
            self._abort()

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except HilError:
            raise
        except raised() as error:
            if fired.is_set():
                raise BoardTimeout(f"board {self.name}: no answer to {doing} within {seconds:g} s") from error
            raise self._told(doing, error) from error
        finally:
            timer.cancel()

    def _abort(self) -> None:
        client = self._client
        transport = client.get_transport() if client is not None else None
        if transport is not None:
            transport.close()

    def _still_connected(self) -> bool:
        """Also after the moment in which paramiko knows of a closed channel, but not yet of its connection's end."""
        deadline = time.monotonic() + SETTLE_S
        while self._connected() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._connected()

    def _told(self, doing: str, error: BaseException) -> BoardError:
        return as_ours(self.name, doing, error, linked=self._still_connected())


def _transfer_s(size_bytes: int) -> float:
    return TRANSFER_TIMEOUT_S + size_bytes / 1e5


def _short(argv: Sequence[str]) -> str:
    """The command for a message: a script in it is only begun."""
    command = " ".join(shlex.join(argv).split())
    return command if len(command) <= 120 else command[:100] + " ..."
