"""A board that went away: its power cycled by a command of this machine, and the wait until it answers again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from hil.boards.board import Board
from hil.boards.config import BoardConfig
from hil.errors import BoardError, BoardTimeout, LinkLost, Unreachable, UsageError

ACTIONS = ("on", "off", "cycle")
POWER_TIMEOUT_S = 60.0
RETURN_S = 180.0  # a Yocto board answers SSH some 30 s after power, a file system check not included
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
GONE = (Unreachable, LinkLost, BoardTimeout)

T = TypeVar("T")


def switch(config: BoardConfig, action: str) -> None:
    """Runs the board's `power` command with `action`, one of ACTIONS, as its last word.

    Raises UsageError where the board has none or its program is missing, BoardError where it fails.
    """
    if not config.power:
        raise UsageError(f"board {config.name} has no power hook: set `power` in boards.toml to a command")
    argv = [*config.power, action]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=POWER_TIMEOUT_S, check=False,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"board {config.name}: power: {argv[0]}: {error.strerror}: fix `power`") from error
    except subprocess.TimeoutExpired as error:
        raise BoardError(f"board {config.name}: `{' '.join(argv)}` did not end within {POWER_TIMEOUT_S:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise BoardError(
            f"board {config.name}: `{' '.join(argv)}` failed (exit {done.returncode}): {said}: fix the power hook"
        )


def answering(board: Board, attempt: Callable[[], T]) -> T:
    """The result of `attempt`. Where the board does not answer, its power is cycled (if there is a hook), and it is
    tried again, with growing pauses, for as long as the board may take to come back.

    Raises what `attempt` raises where nothing is to be waited for, Unreachable at the deadline, and what `switch` does.
    """
    config = board.config
    patience_s = config.return_deadline_s or (RETURN_S if config.power else 0.0)
    try:
        return attempt()
    except GONE:
        if not patience_s:
            raise
    if config.power:
        switch(config, "cycle")
    deadline, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return attempt()
        except GONE as error:
            if time.monotonic() + pause_s >= deadline:
                how = "after its power was cycled" if config.power else "by itself"
                raise Unreachable(
                    f"board {config.name} did not come back within {patience_s:g} s {how}: {error}: "
                    "look at its console, or raise return_deadline_s"
                ) from error
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
