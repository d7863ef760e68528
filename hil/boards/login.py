"""Where a board's SSH server is, which way leads there, and as whom to log in.

What boards.toml says counts first; what it leaves open comes from ~/.ssh/config, then from ssh's defaults. A board that
we start ourselves has everything in its settings, and no file of the user's changes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hil.boards.config import BoardConfig
from hil.boards.ssh_config import NOTHING, HostSettings, host_settings
from hil.errors import UsageError
from hil.user import expanded, user_name

SSH_PORT = 22
DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")  # in ssh's order
MOST_JUMPS = 8
HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@\s]+)@)?(?:\[(?P<ipv6>[^\]\s]+)\]|(?P<host>[^:@\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True)
class Login:
    """One SSH server on the way to a board, and how to log in there.

    Attributes:
        config: the board's settings, with this server's host, port and user, and a name that says which server it is.
        board: the board's own name.
        host_key_name: the server's name in known_hosts.
        known_hosts: files of pinned keys; a new one goes into the first.
        keys: files of private keys, in the order in which they are tried.
        chosen: whether boards.toml names them, so that one which cannot be used is a mistake.
        agent: as HostSettings.identity_agent.
        other_keys: whether the agent's other keys may be tried.
        via: the server that leads to this one; None: none.
        command: the ProxyCommand that leads to it; empty: none.
        notes: what may explain that we are not let in.
    """

    config: BoardConfig
    board: str
    host_key_name: str
    known_hosts: tuple[Path, ...]
    keys: tuple[Path, ...]
    chosen: bool
    agent: str
    other_keys: bool
    via: Login | None
    command: str
    notes: tuple[str, ...]

    @property
    def who(self) -> str:
        return f"board {self.config.name}"

    @property
    def where(self) -> str:
        return f"{self.who}: {self.config.host} port {self.config.port}"

    @property
    def trust_command(self) -> str:
        return f"hilnas board trust {self.board}"

    def way(self) -> Iterator[Login]:
        """The servers that lead to this one, then this one."""
        if self.via is not None:
            yield from self.via.way()
        yield self


@dataclass(frozen=True)
class Hop:
    """A jump host as it is written; what is left open is empty (0)."""

    host: str
    user: str
    port: int


def find_login(config: BoardConfig) -> Login:
    """Raises UsageError where boards.toml and ~/.ssh/config together make no sense."""
    ours = config.kind not in ("ssh", "labgrid")
    settings = host_settings(config.host, NOTHING if ours else config.ssh_config)
    port, user = config.port or settings.port or SSH_PORT, config.user or settings.user
    return Login(
        config=replace(config, host=settings.host, port=port, user=user or user_name()),
        board=config.name,
        host_key_name=settings.host_key_alias or _host_entry(settings.host, port),
        known_hosts=(expanded(config.known_hosts),) if config.known_hosts else settings.known_hosts,
        keys=(expanded(config.key),) if config.key else settings.identity_files or default_keys(),
        chosen=config.key != "",
        agent=settings.identity_agent,
        other_keys=not (config.key or settings.identities_only),
        via=_via(config, parse_jump(config.name, config.jump or settings.proxy_jump)),
        command="" if config.jump else settings.proxy_command,
        notes=_notes(settings, user),
    )


def default_keys() -> tuple[Path, ...]:
    """Those of ssh's default names that are there."""
    return tuple(path for name in DEFAULT_KEYS if (path := expanded(f"~/.ssh/{name}")).is_file())


def parse_jump(board: str, text: str) -> tuple[Hop, ...]:
    """The hosts of a `jump` or a ProxyJump, in the order in which they are passed. Raises UsageError."""
    if text.strip().lower() in ("", NOTHING):
        return ()
    hops = []
    for part in text.split(","):
        found = HOP.fullmatch(part.strip())
        port = int(found["port"] or 0) if found else -1
        if found is None or not 0 <= port <= 65535:
            raise UsageError(
                f"board {board}: jump {text!r} is not [USER@]HOST[:PORT], or several joined by commas: fix `jump` in "
                "boards.toml, or ProxyJump in ~/.ssh/config"
            )
        hops.append(Hop(found["ipv6"] or found["host"], found["user"] or "", port))
    return tuple(hops)


def _via(config: BoardConfig, hops: Sequence[Hop], depth: int = 0) -> Login | None:
    """The last of the jump hosts, which are reached through each other."""
    if not hops:
        return None
    if depth == MOST_JUMPS:
        raise UsageError(f"board {config.name}: jump hosts lead in a circle: see `jump`, ProxyJump in ~/.ssh/config")
    *before, hop = hops
    settings = host_settings(hop.host, config.ssh_config)
    # as with `ssh -J`, the first host is reached in its own way, each later one through the one before
    via = _via(config, before or parse_jump(config.name, settings.proxy_jump), depth + 1)
    port, user = hop.port or settings.port or SSH_PORT, hop.user or settings.user
    name = f"{config.name}, jump host {hop.host}"
    return Login(
        config=replace(config, name=name, host=settings.host, port=port, user=user or user_name()),
        board=config.name,
        host_key_name=settings.host_key_alias or _host_entry(settings.host, port),
        known_hosts=(*_all(config.known_hosts), *settings.known_hosts),
        keys=(*_all(config.key), *(settings.identity_files or default_keys())),
        chosen=False,
        agent=settings.identity_agent,
        other_keys=not settings.identities_only,
        via=via,
        command="" if via is not None else settings.proxy_command,
        notes=_notes(settings, user),
    )


def _all(path: str) -> list[Path]:
    return [expanded(path)] if path else []


def _host_entry(host: str, port: int) -> str:
    """A server's name in a known_hosts file."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def _notes(settings: HostSettings, user: str) -> tuple[str, ...]:
    notes = [] if user else [f"no `user` is set, so this machine's {user_name()} was taken"]
    if settings.left_out:
        notes.append(f"{', '.join(settings.left_out[:3])} cannot be read here and was left out")
    return tuple(notes)
