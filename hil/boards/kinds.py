"""Opens a board of any kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hil.boards.board import Board
from hil.boards.config import BoardConfig
from hil.boards.labgrid import LabgridBoard
from hil.boards.loopback import LoopbackBoard
from hil.boards.qemu import QemuBoard
from hil.boards.replay import ReplayBoard
from hil.boards.ssh import SSHBoard
from hil.boards.ssh_connection import Pinned, pin
from hil.errors import UsageError

BOARD_KINDS: Mapping[str, Callable[[BoardConfig], Board]] = {
    "ssh": SSHBoard,
    "loopback": LoopbackBoard,
    "labgrid": LabgridBoard,
    "replay": ReplayBoard,
    "qemu": QemuBoard,
}
"""What `kind` in boards.toml may be: `hil.boards.config.KINDS`."""


def open_board(config: BoardConfig) -> Board:
    """The board, ready to use as a context manager. An SSH board connects at the first call."""
    return BOARD_KINDS[config.kind](config)


def trust(config: BoardConfig) -> Iterator[Pinned]:
    """Pins the host keys on the way to the board, as each server shows it now, the board's last: compare them there.

    Raises HostKeyChanged when another key is pinned, HostKeyRevoked, Unreachable, UsageError for a board that pins its
    own key.
    """
    if config.kind == "labgrid":
        with open_board(config) as board:  # only the coordinator knows the address
            yield from pin(board.config)
        return
    if config.kind != "ssh":
        raise UsageError(f"board {config.name} is a {config.kind}: it pins its own key, there is nothing to trust")
    yield from pin(config)
