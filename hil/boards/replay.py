"""A board without a machine: its session (hil/replay.py) answers from recorded measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from hil.boards.board import CommandResult, Process
from hil.boards.config import BoardConfig
from hil.errors import UsageError


class ReplayBoard:
    """Runs no command and holds no file. Raises UsageError wherever a machine is needed."""

    def __init__(self, config: BoardConfig) -> None:
        self.name = config.name
        self.config = config

    def run(self, argv: Sequence[str], timeout_s: float, stdin: bytes = b"") -> CommandResult:  # noqa: ARG002
        self._refuse()

    def put(self, local: Path, remote: str) -> None:  # noqa: ARG002
        self._refuse()

    def get(self, remote: str, local: Path) -> None:  # noqa: ARG002
        self._refuse()

    def start(self, argv: Sequence[str]) -> Process:  # noqa: ARG002
        self._refuse()

    def disconnect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> ReplayBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _refuse(self) -> NoReturn:
        raise UsageError(f"board {self.name} is a replay of {self.config.store}, without a machine: name a real board")
