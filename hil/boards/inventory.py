"""boards.toml: which boards there are. Strict: an unknown key or board is an error naming the near miss."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hil.boards import Board
from hil.errors import UsageError

KERNELS = ("xnnpack", "builtin", "reference")
SERVERS = ("auto", "sshd", "asyncssh")


@dataclass(frozen=True)
class BoardConfig:
    """One board.

    Attributes:
        kind: "ssh", or "loopback": this machine behind a private SSH server.
        key: file of the private key; empty: the agent's and ~/.ssh's. known_hosts: empty: ~/.ssh/known_hosts.
        python: the interpreter on the board; empty: "python3", or on a loopback this very one.
        workdir: folder on the board for everything we put there; empty: a loopback's own private one.
        delegate: path of the delegate's library on the board; empty: none.
        kernels: what runs on the CPU: xnnpack, builtin (no XNNPACK), or reference (slow, plain C).
        server: which server a loopback starts; auto: sshd where there is one, else asyncssh.
        labels: free words about the board.
        parity_max_abs_diff, parity_max_mismatch: an output is right when no element differs by more than the
            first (in its own units), or when no larger fraction of elements than the second differs at all.
            The defaults ask for equality.
        allow_fallback: whether a model of which the delegate takes nothing may count.
    """

    name: str
    kind: str
    host: str = ""
    port: int = 22
    user: str = ""
    key: str = ""
    known_hosts: str = ""
    python: str = ""
    workdir: str = ""
    delegate: str = ""
    delegate_options: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    kernels: str = "xnnpack"
    server: str = "auto"
    connect_timeout_s: float = 10.0
    labels: dict[str, str] = field(default_factory=dict)
    parity_max_abs_diff: float = 0.0
    parity_max_mismatch: float = 0.0
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        self._require_one_of("kind", self.kind, BOARD_KINDS)
        self._require_one_of("kernels", self.kernels, KERNELS)
        self._require_one_of("server", self.server, SERVERS)
        if self.kind == "ssh" and not (self.host and self.user):
            raise UsageError(f"board {self.name}: kind ssh needs host and user")
        if not 1 <= self.port <= 65535:
            raise UsageError(f"board {self.name}: port is {self.port}, give 1 to 65535")
        if self.threads < 1 or self.connect_timeout_s <= 0:
            raise UsageError(f"board {self.name}: threads and connect_timeout_s must be above 0")
        if self.parity_max_abs_diff < 0 or not 0 <= self.parity_max_mismatch <= 1:
            raise UsageError(f"board {self.name}: parity_max_abs_diff >= 0, parity_max_mismatch within 0 and 1")
        if self.workdir and not (self.workdir.startswith("/") and self.workdir.strip("/")):
            raise UsageError(f"board {self.name}: workdir {self.workdir!r} is no absolute path of a folder of ours")

    def _require_one_of(self, key: str, value: str, allowed: Iterable[str]) -> None:
        if value not in allowed:
            raise UsageError(
                f"board {self.name}: {key} {value!r} is none of {', '.join(allowed)}{_near(value, allowed)}"
            )


def load_boards(path: Path) -> dict[str, BoardConfig]:
    """The boards of a file, by name. Raises UsageError naming the file, the table and the key."""
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: name a boards.toml that exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    return {name: _parse(path, name, entry) for name, entry in raw.items()}


def find_board(path: Path, name: str) -> BoardConfig:
    """Raises UsageError with the near miss when there is no such board."""
    boards = load_boards(path)
    if name not in boards:
        raise UsageError(
            f"no board {name!r} in {path}{_near(name, boards)}; there is {', '.join(boards) or 'none at all'}"
        )
    return boards[name]


def open_board(config: BoardConfig) -> Board:
    """The board, ready to use as a context manager. An SSH board connects at the first call."""
    return BOARD_KINDS[config.kind](config)


def trust(config: BoardConfig) -> str:
    """Pins the board's host key as it is now and returns its fingerprint: compare it on the board's console.

    Raises HostKeyChanged when another key is pinned, Unreachable, UsageError for a loopback.
    """
    if config.kind != "ssh":
        raise UsageError(f"board {config.name} is a {config.kind}: it pins its own key, there is nothing to trust")
    from hil.boards.hostkeys import pin

    return pin(config)


def _open_ssh(config: BoardConfig) -> Board:
    from hil.boards.ssh import SSHBoard

    return SSHBoard(config)


def _open_loopback(config: BoardConfig) -> Board:
    from hil.boards.loopback import LoopbackBoard

    return LoopbackBoard(config)


BOARD_KINDS: Mapping[str, Callable[[BoardConfig], Board]] = {"ssh": _open_ssh, "loopback": _open_loopback}


def _parse(path: Path, name: str, entry: Any) -> BoardConfig:
    if not isinstance(entry, dict):
        raise UsageError(f"{path}: {name!r} stands outside a table: put it under [board name]")
    known = {item.name: item for item in fields(BoardConfig) if item.name != "name"}
    for key, value in entry.items():
        if key not in known:
            raise UsageError(f"{path}: [{name}] has an unknown key {key!r}{_near(key, known)}")
        _require_type(f"{path}: [{name}] {key}", str(known[key].type), value)
    if "kind" not in entry:
        raise UsageError(f"{path}: [{name}] lacks kind: one of {', '.join(BOARD_KINDS)}")
    return BoardConfig(name=name, **entry)


def _require_type(where: str, wanted: str, value: Any) -> None:
    """`wanted` is the field's annotation, as text."""
    holds: Mapping[str, Callable[[], bool]] = {
        "str": lambda: isinstance(value, str),
        "bool": lambda: isinstance(value, bool),
        "int": lambda: isinstance(value, int) and not isinstance(value, bool),
        "float": lambda: isinstance(value, (int, float)) and not isinstance(value, bool),
        "dict[str, str]": lambda: isinstance(value, dict) and all(isinstance(v, str) for v in value.values()),
    }
    if not holds[wanted]():
        raise UsageError(f"{where} is {value!r}: give a {wanted}")


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
