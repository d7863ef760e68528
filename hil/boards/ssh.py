"""A board behind SSH, with paramiko.

Every wait has its own deadline: a TCP connect that succeeds is no proof of life. An exit status of -1 means
that the link was lost, never that the command failed.
"""

from __future__ import annotations

import shlex
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from hil.boards.board import CommandResult
from hil.boards.config import BoardConfig
from hil.boards.ssh_connection import CHANNEL_TIMEOUT_S, connect
from hil.boards.ssh_process import SAY_PID, SSHProcess, close_channel, collect, is_up, split_pid
from hil.errors import BoardError, BoardFull, BoardTimeout, LinkLost, UsageError

TRANSFER_TIMEOUT_S = 60.0  # plus a second for every 100 KB: a slow link is no fault
KILL_TIMEOUT_S = 5.0
BLOCK_BYTES = 32768  # what every SFTP server accepts in one write


class SSHBoard:
    """Connects at the first call, and anew at the first call after a lost link. Not for several threads."""

    def __init__(self, config: BoardConfig) -> None:
        self.name = config.name
        self.config = config
        self._client: Any = None
        self._sftp: Any = None

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        channel, command = self._execute(argv)
        raw_stderr = bytearray()
        try:
            channel.shutdown_write()
            exit_code, stdout = collect(channel, time.monotonic() + timeout_s, raw_stderr)
        except TimeoutError as error:
            pid, _ = split_pid(bytes(raw_stderr))
            if pid is not None:
                self._kill(pid)
            what = "was killed" if pid is not None else "may still run there"  # its process id never arrived
            raise BoardTimeout(
                f"board {self.name}: {_short(command)} did not end within {timeout_s:g} s and {what}: "
                "give it longer, or look at the board"
            ) from error
        except (OSError, EOFError) as error:
            raise self._lost(command) from error
        finally:
            close_channel(channel)
        if exit_code == -1 and self._connected():  # paramiko drops the server's message about the signal
            raise LinkLost(f"board {self.name}: {_short(command)} was killed there by a signal: see `dmesg`")
        if exit_code == -1:
            raise self._lost(command)
        _, stderr = split_pid(bytes(raw_stderr))
        return CommandResult(tuple(argv), exit_code, stdout, stderr.decode("utf-8", "replace"))

    def start(self, argv: Sequence[str]) -> SSHProcess:
        channel, command = self._execute(argv)
        return SSHProcess(channel, f"board {self.name}: {_short(command)}", self._kill)

    def _kill(self, pid: int) -> None:
        """Kills a process group on the board, if the board still listens. Never raises a BoardError."""
        with suppress(BoardError):
            if self._connected():
                channel, _ = self._execute(["sh", "-c", f"kill -9 -{pid} || kill -9 {pid}"])
                channel.status_event.wait(KILL_TIMEOUT_S)
                close_channel(channel)

    def put(self, local: Path, remote: str) -> None:
        local = Path(local)
        if not local.is_file():
            raise UsageError(f"{local}: no such file: nothing to copy to board {self.name}")
        size, part = local.stat().st_size, remote + ".part"
        with self._transfer(f"copying {local} to {remote}", size) as sftp:
            written = -1
            try:
                written = self._write(sftp, local, part)
                if written == size:
                    sftp.posix_rename(part, remote)
                    return
            except FileNotFoundError as error:
                raise BoardError(f"board {self.name}: no folder for {remote}: make it first") from error
            except PermissionError as error:
                raise BoardError(f"board {self.name}: {self.config.user or 'we'} may not write {remote}") from error
            except OSError:
                if not self._connected():
                    raise
            with suppress(OSError, EOFError):
                sftp.remove(part)
        taken = f"took {written} of {size} bytes" if written >= 0 else f"refused to take {size} bytes"
        raise BoardFull(
            f"board {self.name}: {taken} of {remote}: its disk or quota is full: free space there (see `df`)"
        )

    def get(self, remote: str, local: Path) -> None:
        local = Path(local)
        part = local.with_name(f"{local.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with self._transfer(f"copying {remote}", 1 << 30) as sftp:
                sftp.get(remote, str(part))
            part.replace(local)
        except FileNotFoundError as error:
            raise BoardError(f"board {self.name}: no file {remote} there (or no folder {local.parent} here)") from error
        except PermissionError as error:
            raise BoardError(f"board {self.name}: {remote} may not be read, or {local} not written") from error
        finally:
            part.unlink(missing_ok=True)

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

    def _execute(self, argv: Sequence[str]) -> tuple[Any, str]:
        if not argv or any("\0" in word for word in argv):
            raise UsageError(f"board {self.name}: a command is at least one word, without NUL")
        command = shlex.join(argv)
        whole = "exec " + shlex.join((*SAY_PID, *argv))  # no login shell stays in between
        with self._watched(f"starting {_short(command)}", CHANNEL_TIMEOUT_S):
            channel = self._transport().open_session(timeout=CHANNEL_TIMEOUT_S)
            channel.exec_command(whole)
        return channel, command

    @contextmanager
    def _transfer(self, doing: str, size_bytes: int) -> Iterator[Any]:
        import paramiko

        with self._watched(doing, TRANSFER_TIMEOUT_S + size_bytes / 1e5):
            transport = self._transport()
            if self._sftp is None or self._sftp.get_channel().closed:
                self._sftp = paramiko.SFTPClient.from_transport(transport)
            yield self._sftp

    @staticmethod
    def _write(sftp: Any, local: Path, part: str) -> int:
        """Size of the file on the board afterwards, bytes. Raises OSError where it refuses one."""
        with local.open("rb") as source, sftp.file(part, "wb") as target:
            target.set_pipelined(True)  # a round trip for each block would be most of the time
            while block := source.read(BLOCK_BYTES):
                target.write(block)
            target.flush()
        return int(sftp.stat(part).st_size)

    @contextmanager
    def _watched(self, doing: str, seconds: float) -> Iterator[None]:
        """paramiko waits for replies without end; past the deadline the connection is cut under it."""
        import paramiko

        fired = threading.Event()

        def cut() -> None:
            fired.set()
            self._abort()

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (paramiko.SSHException, EOFError) as error:
            if fired.is_set():
                raise BoardTimeout(f"board {self.name}: no answer to {doing} within {seconds:g} s") from error
            if self._connected() and isinstance(error, paramiko.ChannelException):
                raise BoardError(f"board {self.name} refuses {doing}: {error}: see its SSH server's log") from error
            raise self._lost(doing) from error
        except OSError as error:
            if fired.is_set():
                raise BoardTimeout(f"board {self.name}: no answer to {doing} within {seconds:g} s") from error
            if self._connected():
                raise
            raise self._lost(doing) from error
        finally:
            timer.cancel()

    def _abort(self) -> None:
        client = self._client
        transport = client.get_transport() if client is not None else None
        if transport is not None:
            transport.close()

    def _lost(self, doing: str) -> LinkLost:
        return LinkLost(
            f"board {self.name}: the link was lost during {_short(doing)}: "
            "check cable, power and `uptime` on the board, then run again"
        )


def _short(command: str) -> str:
    return command if len(command) <= 120 else command[:100] + " ..."
