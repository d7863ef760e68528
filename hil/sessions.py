"""What runs jobs: `JobSession`, the protocol that measuring relies on, and `open_session` for any kind of board."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from hil.answer import Answer
from hil.boards.board import Board
from hil.measurement import Conditions
from hil.replay import ReplaySession
from hil.request import Request
from hil.session import Session


class JobSession(Protocol):
    """Use as a context manager. Requests may be sent ahead; answers come in the order of the requests.

    Attributes:
        board: stays the caller's to close.
        conditions: under which the jobs run; they may change when it reconnects.
        recorded: whether the answers are recorded ones, so that nothing runs now.
    """

    board: Board
    conditions: Conditions
    recorded: bool

    def stage_many(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The files' paths for a request. Raises UsageError, BoardError."""
        ...

    def send(self, request: Request) -> None:
        """Raises LinkLost, BoardTimeout; UsageError for what a replay has no record of."""

    def receive(self, job_id: str) -> Answer:
        """The answer to that request. Raises LinkLost, BoardTimeout, BoardError."""
        ...

    def acknowledge(self, job_ids: Sequence[str]) -> None:
        """These answers are stored: the board may delete them. Raises LinkLost, BoardTimeout."""

    def reconnect(self) -> None:
        """Raises BoardError when the board came back in another state."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


SESSION_KINDS: Mapping[str, Callable[[Board], JobSession]] = {"replay": ReplaySession}
"""The kinds of board whose jobs no runner runs."""


def open_session(board: Board) -> JobSession:
    """A session on any kind of board, ready to use as a context manager."""
    return SESSION_KINDS.get(board.config.kind, Session)(board)
