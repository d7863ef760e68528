"""A board reserved for somebody, for a time: kept on the board (board_scripts/reserve.py), and expiring there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hil.boards.board import Board
from hil.boards.refusal import last_line, refusal
from hil.checks import json_object
from hil.errors import BoardBusy, BoardError, UsageError
from hil.scripts import run_script
from hil.session import DEFAULT_WORKDIR, owner

TIMEOUT_S = 30.0
LONGEST_S = 30 * 86400
UNITS_S = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}


@dataclass(frozen=True)
class Reservation:
    """Who has reserved a board.

    Attributes:
        since: the board's clock, ISO 8601 in UTC.
        until: the board's clock, ISO 8601 in UTC.
        left_s: seconds until it expires, which no step of the board's clock changes.
    """

    owner: str
    note: str
    since: str
    until: str
    left_s: int

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"reserved by {self.owner}{note} until {self.until}, {self.left_s / 60:.0f} min left"


@dataclass(frozen=True)
class Occupancy:
    """Who uses a board.

    Attributes:
        runner: whose runner is at work there, and since when; empty for nobody's.
    """

    reservation: Reservation | None
    runner: str

    def others(self) -> str:
        """Who other than us uses it, in words; empty when nobody does."""
        reserved = self.reservation if self.reservation and self.reservation.owner != owner() else None
        running = self.runner if self.runner and self.runner.split(" ")[0] != owner() else ""
        return "; ".join([*([str(reserved)] if reserved else []), *([f"in use by {running}"] if running else [])])

    def __str__(self) -> str:
        running = f"in use by {self.runner}" if self.runner else ""
        return "; ".join(filter(None, (str(self.reservation or ""), running))) or "free"


def occupancy(board: Board) -> Occupancy:
    """Who uses the board now. Raises BoardError where that cannot be read."""
    return _ask(board, "show")[1]


def reserve(board: Board, seconds: float, note: str = "") -> Reservation:
    """For us, from now on. Raises BoardBusy where somebody else has the board."""
    done, found = _ask(board, "take", "--owner", owner(), "--seconds", f"{seconds:g}", f"--note={note}")
    if not done or found.reservation is None:
        raise BoardBusy(f"board {board.name} is {found}: wait, or ask them")
    return found.reservation


def release(board: Board, *, force: bool = False) -> None:
    """Ends our reservation, or with `force` anybody's. Raises BoardBusy where it is somebody else's."""
    done, found = _ask(board, "release", "--owner", owner(), *(["--force"] if force else []))
    if not done:
        raise BoardBusy(f"board {board.name} is {found}: ask them, or release it with --force")


def seconds_of(text: str) -> int:
    """ "90s", "30m", "10min", "1h30m", "2d". Raises UsageError."""
    parts = re.findall(r"(\d+)(d|h|min|m|s)", text)
    seconds = sum(int(number) * UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not 0 < seconds <= LONGEST_S:
        raise UsageError(f"{text!r} is no time of at most 30 days: give for example 45m, 2h or 1h30m")
    return seconds


def _ask(board: Board, action: str, *arguments: str) -> tuple[bool, Occupancy]:
    """Whether it was done, and who has the board now."""
    workdir = board.config.workdir or DEFAULT_WORKDIR
    said = run_script(board, "reserve.py", action, "--workdir", workdir, *arguments, timeout_s=TIMEOUT_S)
    if said.exit_code and "[Errno" in said.stderr:
        raise refusal(board.name, "does not say who has it", said.stderr)
    if said.exit_code:
        raise BoardError(
            f"board {board.name}: {board.config.python or 'python3'} cannot say who has it (exit {said.exit_code}): "
            f"{last_line(said.stderr)}: set `python` in boards.toml to one from 3.9 on"
        )
    who = f"board {board.name}: what its reservation script printed"
    try:
        found = json_object(said.stdout, who)
        held, runner = found["reservation"], found["runner"]
        using = f"{runner['owner']} since {runner['since']} (process {runner['pid']} there)" if runner else ""
        return bool(found["done"]), Occupancy(Reservation(**held) if held else None, using)
    except (KeyError, TypeError) as error:
        raise BoardError(f"{who} is {said.stdout[:200]!r}: clean the board's workdir and try again") from error
