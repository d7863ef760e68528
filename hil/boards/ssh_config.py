"""~/.ssh/config: what it says about a host, as `ssh HOST` would read it.

paramiko parses the text. Ours are Include, which it passes over, and leaving out what it cannot read: a Match block
whose criteria it does not decide would count for every host, and a line without a value would end the reading.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hil.errors import UsageError
from hil.user import expanded, home, user_name

USERS_FILE = "~/.ssh/config"
SYSTEMS_FILE = "/etc/ssh/ssh_config"
NOTHING = "none"
DEEPEST = 16  # OpenSSH's limit of Includes in Includes
LINE = re.compile(r"(\w+)(?:\s*=\s*|\s+)(\S.*)")
COMMENT = re.compile(r"\s+#[^\"']*$")
BARE = frozenset({"all", "canonical", "final"})  # criteria of Match without an argument
DECIDED = BARE | {"host", "originalhost", "user", "localuser"}
NEVER = "Host !*"
# not %l: paramiko would ask the name server for this machine's name whether it is written there or not
TOKENS = {
    "hostname": ["%h"],
    "identityfile": ["%d", "%h", "%u", "%r"],
    "proxycommand": ["%h", "%p", "%r"],
    "proxyjump": ["%h", "%p", "%r"],
}


@dataclass(frozen=True)
class HostSettings:
    """What the files say about a host; empty (port 0) where they say nothing.

    Attributes:
        host: its address; the name that was asked for where the files have none.
        identity_files: private keys, in order.
        identities_only: whether only those may be offered.
        identity_agent: socket of the agent; "none": no agent; empty: SSH_AUTH_SOCK's.
        known_hosts: the user's files, then the machine's.
        proxy_jump: hosts that lead to it, [USER@]HOST[:PORT] joined by commas.
        proxy_command: a command whose input and output lead to it; never beside a proxy_jump.
        left_out: places (FILE:LINE) that could not be read.
    """

    host: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    identities_only: bool
    identity_agent: str
    known_hosts: tuple[Path, ...]
    host_key_alias: str
    proxy_jump: str
    proxy_command: str
    left_out: tuple[str, ...]


def host_settings(host: str, ssh_config: str) -> HostSettings:
    """`ssh_config` as in boards.toml: a file, "none", or empty for the user's and the machine's.

    Raises UsageError for a file that was named and is not there, a port that is none, and Includes in a circle.
    """
    text = _text_of(ssh_config)
    words, identity_files = _looked_up(text.lines, host, ssh_config or USERS_FILE)
    first = next((key for key in words if key in ("proxyjump", "proxycommand")), "")  # as for ssh, it alone counts
    return HostSettings(
        host=words["hostname"],
        port=_port(words.get("port", "0"), host, ssh_config or USERS_FILE),
        user=words.get("user", ""),
        identity_files=tuple(expanded(name) for name in identity_files if name.lower() != NOTHING),
        identities_only=words.get("identitiesonly", "").lower() == "yes",
        identity_agent=_agent(words.get("identityagent", "")),
        known_hosts=(
            *_files(words.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"), host),
            *_files(words.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"), host),
        ),
        host_key_alias=words.get("hostkeyalias", ""),
        proxy_jump=words["proxyjump"] if first == "proxyjump" else "",
        proxy_command=words["proxycommand"] if first == "proxycommand" else "",
        left_out=tuple(text.left_out),
    )


class _Text:
    """One text out of files that include each other.

    Attributes:
        lines: what paramiko can parse.
        left_out: places of what it cannot.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left_out: list[str] = []

    def read(self, path: Path, folder: Path, within: str, depth: int = 0) -> None:
        """Adds a file, if it is there. `within`: the line that begins the block which includes it."""
        if depth > DEEPEST:
            raise UsageError(f"{path}: Includes lead in a circle, or more than {DEEPEST} deep: remove one")
        try:
            content = path.read_bytes().decode("utf-8", "replace").replace("\0", "\ufffd")
        except OSError:
            return  # as for ssh: nobody has to have one
        block = within
        self.lines.append(block)
        for number, raw in enumerate(content.split("\n"), start=1):
            line = raw.strip().removeprefix("\ufeff")
            if not line or line.startswith("#"):
                continue
            place, parsed = f"{path}:{number}", LINE.fullmatch(line)
            if parsed is None:
                self.left_out.append(place)
                continue
            key, value = parsed[1].lower(), parsed[2]
            if key != "proxycommand":
                value = COMMENT.sub("", value)
            if key == "include":
                for included in self._included(value, folder, place):
                    self.read(included, folder, block, depth + 1)
                self.lines.append(block)
            elif key in ("host", "match"):
                block = self._block(key, value, within, place)
                self.lines.append(block)
            else:
                self.lines.append(f"{key} {value}")

    def _included(self, value: str, folder: Path, place: str) -> Iterator[Path]:
        for pattern in _words(value):
            path = folder / expanded(re.sub(r"\*+", "*", pattern))  # `**` is nothing special to ssh
            try:
                for found in sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))):
                    if not found.name.startswith(".") or path.name.startswith("."):
                        yield found
            except (OSError, ValueError, LookupError):  # LookupError: glob of "/" itself
                self.left_out.append(place)

    def _block(self, key: str, value: str, within: str, place: str) -> str:
        """The line that begins a block: it counts where the block around its file does, too."""
        words = _words(value)
        own = _decided(words) if key == "match" else ["originalhost", ",".join(words)]
        around = _decided(_words(within.partition(" ")[2]))
        if not words or own is None:
            self.left_out.append(place)
            return NEVER
        return "Match " + (" ".join(map(shlex.quote, [*around, *own])) or "all") if around is not None else NEVER


def _text_of(ssh_config: str) -> _Text:
    text, everywhere = _Text(), "Match all"
    if not ssh_config:
        for path in (expanded(USERS_FILE), Path(SYSTEMS_FILE)):
            text.read(path, path.parent, everywhere)
    elif ssh_config != NOTHING:
        path = expanded(ssh_config)
        if not path.is_file():
            raise UsageError(f'{path}: no such file: fix `ssh_config` in boards.toml ("none" reads no file)')
        text.read(path, expanded(USERS_FILE).parent, everywhere)
    return text


def _decided(words: Sequence[str]) -> list[str] | None:
    """The criteria of a Match line, without "all"; None where paramiko cannot decide it."""
    rest, found = list(words), []
    while rest:
        criterion = rest.pop(0).lower()
        kind = criterion.removeprefix("!")
        if kind not in DECIDED or criterion == "!all" or (kind not in BARE and not rest):
            return None
        if criterion != "all":
            found += [criterion] if kind in BARE else [criterion, rest.pop(0)]
    return found


def _words(value: str) -> list[str]:
    """Split as a shell would; none where a quotation does not end."""
    try:
        return shlex.split(value)
    except ValueError:
        return []


def _looked_up(lines: Sequence[str], host: str, source: str) -> tuple[dict[str, str], list[str]]:
    """The host's settings by their lower-case keys, in the order in which they were found, and its IdentityFiles."""
    import paramiko

    try:
        with variable("LOGNAME", user_name()):  # paramiko wants a name, and fails where there is none
            parser = paramiko.SSHConfig.from_text("\n".join(lines))
            parser.TOKENS_BY_CONFIG_KEY = TOKENS
            found = parser.lookup(host)
    except (paramiko.SSHException, OSError, LookupError, ValueError) as error:
        raise UsageError(
            f'{source}: cannot be read for host {host}: {error}: fix it, or set ssh_config = "none" in boards.toml'
        ) from error
    words = {key: value or "" for key, value in found.items() if value is None or isinstance(value, str)}
    return words, [str(name) for name in found.get("identityfile", [])]


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """An environment variable for what paramiko reads there and takes from nowhere else."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _agent(value: str) -> str:
    if value.startswith("$"):
        return os.environ.get(value[1:], NOTHING)
    if value in ("", "SSH_AUTH_SOCK") or value.lower() == NOTHING:
        return "" if value == "SSH_AUTH_SOCK" else value.lower()
    return str(expanded(value.replace("%d", str(home()))))


def _files(value: str, host: str) -> tuple[Path, ...]:
    names = [name.replace("%d", str(home())).replace("%h", host) for name in _words(value)]
    return tuple(expanded(name) for name in names if name.lower() != NOTHING)


def _port(value: str, host: str, source: str) -> int:
    if re.fullmatch("[0-9]{1,5}", value) and int(value) <= 65535:
        return int(value)
    raise UsageError(f"{source}: Port {value!r} of host {host} is no port: fix it, or set `port` in boards.toml")
