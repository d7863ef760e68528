"""Which boards there are: those of the user's boards.toml, and two that need no entry.

boards.toml is looked for in the working directory, then in the user's configuration folder. `loopback` (this machine)
and `qemu` (an emulated one) exist without it; an entry of that name comes first.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from hil.boards.config import BoardConfig, load_boards
from hil.errors import UsageError
from hil.user import home

FILE_NAME = "boards.toml"
BUILT_IN: Mapping[str, BoardConfig] = {
    "loopback": BoardConfig("loopback", "loopback", target="cpu-xnnpack"),
    "qemu": BoardConfig("qemu", "qemu", target="cpu-xnnpack"),
}


def configuration_folder() -> Path:
    """The user's: $XDG_CONFIG_HOME/hilnas, or ~/.config/hilnas where that is not an absolute path."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else home() / ".config") / "hilnas"


def boards_file(path: Path | None = None) -> Path | None:
    """The absolute path of the boards.toml that counts: `path`, else the first that exists; None: there is none."""
    if path is not None:
        return path.absolute()
    return next((found.absolute() for found in _places() if found.is_file()), None)


def all_boards(path: Path | None = None) -> dict[str, BoardConfig]:
    """The boards by name, those of the file first. Raises UsageError naming the file, the table and the key."""
    file = boards_file(path)
    listed = load_boards(file) if file else {}
    return {**listed, **{name: board for name, board in BUILT_IN.items() if name not in listed}}


def find_board(path: Path | None, name: str) -> BoardConfig:
    """The board of that name. Raises UsageError that says which there are, and where was looked."""
    boards = all_boards(path)
    if name in boards:
        return boards[name]
    close = difflib.get_close_matches(name, boards, n=1)
    file = boards_file(path)
    where = f"in {file}" if file else f"and no boards.toml in {', '.join(str(p.parent.absolute()) for p in _places())}"
    hint = f"did you mean {close[0]!r}? there are" if close else "there are"
    raise UsageError(f"no board {name!r} {where}; {hint} {', '.join(boards)}")


def _places() -> tuple[Path, Path]:
    return Path(FILE_NAME), configuration_folder() / FILE_NAME
