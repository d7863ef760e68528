"""boards.toml: which boards there are. Strict: an unknown key or board is an error naming the near miss."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from hil.errors import UsageError

KINDS = ("ssh", "loopback", "labgrid", "replay", "qemu")
FORMER_KEYS = {"of": "recorded_board"}
KERNELS = ("xnnpack", "builtin", "reference")
SERVERS = ("auto", "sshd", "asyncssh")
LARGEST = 1 << 63
DRIVERS = ("python", "benchmark_model")
REACHED_BY_SSH = ("ssh", "labgrid")  # kinds that are somewhere else; the others bring all that it takes
LONGEST_S = 7 * 86400
MOST_THREADS = 1024
MOST_MB = 1 << 30
HOTTEST_C = 200
BOARD_NAME = re.compile(r"[^\s,/\\\x00-\x1f]+")  # it stands in lists of boards and names folders
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class BoardConfig:
    """One board.

    Attributes:
        kind: "ssh"; "loopback": this machine behind a private SSH server; "labgrid": a place of a labgrid
            coordinator; "qemu": an emulated machine; "replay": no machine, but what a store recorded of one.
        host: a name, an address, or a Host of ~/.ssh/config.
        port: 0: that file's, or else 22.
        user: empty: that file's, or else this machine's user.
        key: file of the private key; empty: that file's, or else the agent's and ~/.ssh's.
        known_hosts: file of pinned host keys; empty: that file's, or else ~/.ssh/known_hosts and /etc/ssh's.
        jump: hosts that lead to the board, [USER@]HOST[:PORT] joined by commas; empty: that file's; "none": none.
        ssh_config: read instead of ~/.ssh/config and /etc/ssh/ssh_config; "none": no file is.
        python: the interpreter on the board; empty: "python3", or on a loopback the one that runs us.
        workdir: folder on the board for everything we put there; empty: a loopback's private one, else /tmp/hilnas.
        delegate: path of the delegate's library on the board; empty: none.
        delegate_sha256: the first digits of that library's sha256, 6 or more; empty: any library.
        delegate_options: texts that the delegate gets when it is loaded.
        env: variables of the runner on the board, which the delegate's driver reads.
        threads: of the interpreter.
        kernels: what runs on the CPU: xnnpack, builtin (no XNNPACK), or reference (slow, plain C).
        root: of a loopback: a folder whose sys, proc, etc and dev/kmsg are read instead of this machine's.
        server: which server a loopback starts; auto: sshd where there is one, else asyncssh.
        connect_timeout_s: how long a connection may take.
        target: the rules that models for this board must keep: a name; empty: none.
        labels: free text about the board.
        parity_max_abs_diff: an output is right when no element differs by more (in the output's units).
        parity_max_mismatch: an output is also right when no larger fraction of elements differs at all. Where one of
            the two is above zero, a full network's is too if it differs no more than two kernel sets do (`hil.spread`),
            and of a class map no difference of classes is a small one.
        allow_fallback: whether a model counts of which the delegate takes no part.
        fleet: boards with the same word are alike: their latencies compare, and they share one queue.
        driver: "python", or "benchmark_model" where the board has no Python runtime (no parity, no single runs).
        benchmark_model: path or glob of that program on the board; of several, the highest version.
        governor: the CPU governor to pin while we measure, restored afterwards; empty: as it is.
        max_temperature_c: runs begin only below it; 0: at any temperature.
        cool_down_s: how long cooling down may take.
        quota_mb: how much of our files the board keeps; the oldest go first.
        power: a command of this machine, to which "on", "off" or "cycle" is added; empty: the board has no such hook.
        return_deadline_s: how long a board that stopped answering may take to come back before we give up; 0: three
            minutes after its power was cycled, and without a power hook not at all.
        place: of a labgrid: the place's name.
        coordinator: of a labgrid: HOST:PORT; empty: LG_COORDINATOR's.
        store: of a replay: the recorded measurements, a file or URL. Recorded outputs are compared by the replay's
            tolerances: give it the recorded board's.
        recorded_board: of a replay: whose measurements to use; empty: the store's only board.
        image: of a qemu: the folder given to `hilnas board qemu build`; empty: that command's default.
    """

    name: str
    kind: str
    host: str = ""
    port: int = 0
    user: str = ""
    key: str = ""
    known_hosts: str = ""
    jump: str = ""
    ssh_config: str = ""
    python: str = ""
    workdir: str = ""
    delegate: str = ""
    delegate_sha256: str = ""
    delegate_options: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    kernels: str = "xnnpack"
    root: str = ""
    server: str = "auto"
    connect_timeout_s: float = 10.0
    target: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    parity_max_abs_diff: float = 0.0
    parity_max_mismatch: float = 0.0
    allow_fallback: bool = False
    fleet: str = ""
    driver: str = "python"
    benchmark_model: str = "/usr/bin/tensorflow-lite-*/examples/benchmark_model"
    governor: str = ""
    max_temperature_c: float = 0.0
    cool_down_s: float = 300.0
    quota_mb: int = 512
    power: tuple[str, ...] = ()
    return_deadline_s: float = 0.0
    place: str = ""
    coordinator: str = ""
    store: str = ""
    recorded_board: str = ""
    image: str = ""
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset(
        {
            "host",
            "port",
            "user",
            "key",
            "known_hosts",
            "jump",
            "ssh_config",
            "workdir",
            "server",
            "connect_timeout_s",
            "labels",
            "cool_down_s",
            "quota_mb",
            "power",
            "return_deadline_s",
            "place",
            "coordinator",
        }
    )
    """How the board is reached and kept: no result depends on it."""

    def __post_init__(self) -> None:
        self._require_one_of("kind", self.kind, KINDS)
        self._require_one_of("kernels", self.kernels, KERNELS)
        self._require_one_of("server", self.server, SERVERS)
        self._require_one_of("driver", self.driver, DRIVERS)
        if self.driver == "benchmark_model":
            self._require_one_of("kernels for benchmark_model", self.kernels, ("xnnpack", "builtin"))
            if any(set(key) & set(":;") or ";" in value for key, value in self.delegate_options.items()):
                raise UsageError(
                    f"board {self.name}: benchmark_model splits delegate_options at ':' and ';': remove them there"
                )
        self._require_reachable()
        if self.kind == "labgrid" and not self.place:
            raise UsageError(f"board {self.name}: kind labgrid needs place")
        if self.kind == "replay" and not self.store:
            raise UsageError(f"board {self.name}: kind replay needs store, a file of measurements")
        if self.root and self.kind != "loopback":
            raise UsageError(f"board {self.name}: only a loopback has a root: remove it from this {self.kind} board")
        if self.delegate_sha256 and not re.fullmatch("[0-9a-f]{6,64}", self.delegate_sha256):
            raise UsageError(f"board {self.name}: delegate_sha256 is 6 to 64 digits 0-9, a-f of a sha256")
        numbers = (self.connect_timeout_s, self.cool_down_s, self.return_deadline_s)
        if not all(0 <= seconds <= LONGEST_S for seconds in numbers):
            raise UsageError(f"board {self.name}: times are within 0 and {LONGEST_S} s, which is a week")
        if self.threads < 1 or self.connect_timeout_s <= 0 or self.cool_down_s <= 0 or self.quota_mb < 1:
            raise UsageError(f"board {self.name}: threads, connect_timeout_s, cool_down_s and quota_mb must be above 0")
        if self.threads > MOST_THREADS or self.quota_mb > MOST_MB:
            raise UsageError(f"board {self.name}: threads are at most {MOST_THREADS}, quota_mb at most {MOST_MB}")
        if not 0 <= self.max_temperature_c <= HOTTEST_C:
            raise UsageError(f"board {self.name}: max_temperature_c is within 0 (at any) and {HOTTEST_C}")
        if not 0 <= self.parity_max_abs_diff < float("inf") or not 0 <= self.parity_max_mismatch <= 1:
            raise UsageError(f"board {self.name}: parity_max_abs_diff >= 0, parity_max_mismatch within 0 and 1")
        if self.workdir and not (self.workdir.startswith("/") and self.workdir.strip("/")):
            raise UsageError(f"board {self.name}: workdir {self.workdir!r} is no absolute path of a folder of ours")
        wrong = next((name for name in self.env if not VARIABLE_NAME.fullmatch(name)), None)
        if wrong is not None:
            raise UsageError(f"board {self.name}: env {wrong!r} is no name of a variable: letters, digits and _")

    def _require_reachable(self) -> None:
        if self.kind == "ssh" and not self.host:
            raise UsageError(f"board {self.name}: kind ssh needs host")
        fault = host_fault(self.host)
        if fault:
            raise UsageError(f"board {self.name}: host {self.host!r} {fault}")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"board {self.name}: port is {self.port}, give 1 to 65535")
        if (self.jump or self.ssh_config) and self.kind not in REACHED_BY_SSH:
            raise UsageError(f"board {self.name}: a {self.kind} is reached directly: remove jump and ssh_config")

    def _require_one_of(self, key: str, value: str, allowed: Iterable[str]) -> None:
        if value not in allowed:
            raise UsageError(
                f"board {self.name}: {key} {value!r} is none of {', '.join(allowed)}{_near(value, allowed)}"
            )


def host_fault(host: str) -> str:
    """What is wrong with the name or address of a host, and what to do; empty where nothing is."""
    if "@" in host:
        return "has a user in it: put that into `user`"
    if "/" in host:
        return "is a URL or a path: give the name or address alone"
    if re.fullmatch(r"[^:]+:[0-9]+|\[.*\]:[0-9]+", host):
        return "has a port in it: put that into `port`"
    try:
        host.encode("idna")
    except UnicodeError:
        host = "-"  # empty or overlong between its dots
    if host.startswith("-") or not re.fullmatch(r"[\w.:%-]*", host):
        return "is no name or address of a host: fix `host` in boards.toml, or HostName in ~/.ssh/config"
    return ""


def load_boards(path: Path) -> dict[str, BoardConfig]:
    """The boards of a file, by name. Raises UsageError naming the file, the table and the key."""
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: name a boards.toml that exists") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is no UTF-8 text ({error}): save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # tomllib: also numbers of 5000 digits, 1000 brackets in brackets
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    return {name: _parse(path, name, entry) for name, entry in raw.items()}


def _parse(path: Path, name: str, entry: Any) -> BoardConfig:
    if not isinstance(entry, dict):
        raise UsageError(f"{path}: {name!r} stands outside a table: put it under [board name]")
    if not BOARD_NAME.fullmatch(name):
        raise UsageError(f"{path}: [{name!r}] is no name for a board: no space, comma or slash, and not empty")
    known = {item.name: item for item in fields(BoardConfig) if item.name != "name"}
    for key, value in entry.items():
        if key not in known:
            former = FORMER_KEYS.get(key)
            hint = f"; it is called {former!r} now, rename it" if former else _near(key, known)
            raise UsageError(f"{path}: [{name}] has an unknown key {key!r}{hint}")
        _require_type(f"{path}: [{name}] {key}", str(known[key].type), value)
    if "kind" not in entry:
        raise UsageError(f"{path}: [{name}] lacks kind: one of {', '.join(KINDS)}")
    settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
    return BoardConfig(name=name, **settings)


def _require_type(where: str, wanted: str, value: Any) -> None:
    """`wanted` is the field's annotation, as text."""
    holds: Mapping[str, Callable[[], bool]] = {
        "str": lambda: _is_text(value),
        "bool": lambda: isinstance(value, bool),
        "int": lambda: isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST,
        "float": lambda: isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) >= LARGEST,
        "dict[str, str]": lambda: isinstance(value, dict) and all(_is_text(text) for text in value.values()),
        "tuple[str, ...]": lambda: isinstance(value, list) and all(map(_is_text, value)),
    }
    if not holds[wanted]():
        raise UsageError(f"{where} is {_shown(value)}: give a {'list of texts' if 'tuple' in wanted else wanted}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _shown(value: Any) -> str:
    """Its beginning; Python prints no number of 5000 digits, and no table in 1000 tables."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):
        return "too large"


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
