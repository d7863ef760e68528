"""What a board is: it runs commands and holds files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from hil.boards.config import BoardConfig


@dataclass(frozen=True)
class CommandResult:
    """A command that ran to its end. A lost link is a LinkLost, never an exit code."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


class Process(Protocol):
    """A long-running process on the board that reads and writes lines."""

    def send(self, line: str) -> None:
        """Writes one line (without its newline). Raises LinkLost, BoardTimeout."""

    def receive(self, timeout_s: float) -> str:
        """The next line. Raises LinkLost when the process or the link ended, BoardTimeout."""
        ...

    def alive(self) -> bool:
        """Whether the process still reads its stdin, as far as the host can know."""
        ...

    def stderr_tail(self) -> str:
        """The last 4 KB that the process wrote to stderr."""
        ...

    def close(self) -> None:
        """Ends it: end of its stdin, and a kill if it does not go. Never raises."""


class Board(Protocol):
    """A board. Every method may raise a BoardError; after one, the next call connects anew.

    Commands are argument vectors: no shell on the way changes a space, quote or newline in them.
    """

    name: str
    config: BoardConfig

    def run(self, argv: Sequence[str], timeout_s: float, stdin: bytes = b"") -> CommandResult:
        """Runs to the end, with `stdin`. Past the deadline the command is killed and BoardTimeout raised.

        Without `stdin` the command may be of any length, with it of a few KB: programs travel as `stdin` or as files.
        """
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copies a file there: whole or not at all. Raises BoardFull when the disk takes no more."""

    def get(self, remote: str, local: Path) -> None:
        """Copies a file here: whole or not at all. Raises BoardError when it does not exist."""

    def start(self, argv: Sequence[str]) -> Process: ...

    def disconnect(self) -> None:
        """Drops the connection; the next call makes a fresh one."""

    def close(self) -> None: ...

    def __enter__(self) -> Board: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
