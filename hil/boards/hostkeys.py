"""Host keys: which ones known_hosts pins for a server, and adding one. Never automatic, never replaced.

A known_hosts file belongs to every SSH client of its user. Lines about other hosts are passed over, whatever they hold:
damaged ones, other alphabets, certificate authorities. The file's format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hil.boards.login import Login
from hil.errors import HostKeyChanged, HostKeyRevoked, HostKeyUnknown, UsageError

SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # a key's kind is the name of its signature, but for RSA


@dataclass(frozen=True)
class HostKey:
    """A public key; equal to another if its bytes are.

    Attributes:
        kind: "ssh-ed25519", "ssh-rsa" and their like.
    """

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.kind})"


@dataclass(frozen=True)
class KnownKeys:
    """What known_hosts says about one server. Each with its place, FILE:LINE.

    Attributes:
        pinned: without those that are revoked.
        withdrawn: where keys are revoked that would be pinned.
        authorities: certificate authorities, whose hosts' certificates paramiko does not read.
        damaged: places of lines that name the server and hold no key.
    """

    pinned: dict[HostKey, str]
    revoked: dict[HostKey, str]
    withdrawn: tuple[str, ...]
    authorities: tuple[str, ...]
    damaged: tuple[str, ...]

    def preferred(self, offered: Sequence[str]) -> tuple[str, ...]:
        """The signatures that we offer, those of pinned keys first: a server shows one key of several."""
        wanted = [name for key in self.pinned for name in SIGNATURES.get(key.kind, (key.kind,)) if name in offered]
        return tuple(dict.fromkeys([*wanted, *offered]))


def known_keys(login: Login) -> KnownKeys:
    """Raises UsageError when a file cannot be read; one that does not exist holds nothing."""
    pinned: dict[HostKey, str] = {}
    revoked: dict[HostKey, str] = {}
    authorities, damaged = [], []
    for place, line in _lines(login.known_hosts):
        words = line.split()
        marker = words.pop(0).decode("utf-8", "replace") if words and words[0].startswith(b"@") else ""
        if not words or not _names(words[0], login.host_key_name):
            continue
        key = _key(words[1:])
        if key is None:
            damaged.append(place)
        elif marker == "@cert-authority":
            authorities.append(place)
        elif marker == "@revoked":
            revoked.setdefault(key, place)
        elif not marker:
            pinned.setdefault(key, place)
    kept = {key: place for key, place in pinned.items() if key not in revoked}
    withdrawn = tuple(place for key, place in revoked.items() if key in pinned)
    return KnownKeys(kept, revoked, withdrawn, tuple(authorities), tuple(damaged))


def require_pinned(login: Login, known: KnownKeys) -> None:
    """Raises HostKeyUnknown, HostKeyRevoked when nothing is pinned: better known before the network is touched."""
    if known.pinned:
        return
    trust = f"run `{login.trust_command}` and compare the fingerprint on its console"
    where = f"{login.who}: no host key of {login.host_key_name} in {', '.join(map(str, login.known_hosts))}"
    if known.withdrawn:
        raise HostKeyRevoked(
            f"{where} but one that {_and(known.withdrawn)} has revoked: make a new one on its console, then {trust}"
        )
    if known.damaged:
        trust = f"{_and(known.damaged)} should have it but is damaged: remove that line, then {trust}"
    elif known.authorities:
        trust = f"the @cert-authority in {_and(known.authorities)} does not help, as certificates are not read: {trust}"
    raise HostKeyUnknown(f"{where}: {trust}")


def check(login: Login, known: KnownKeys, seen: HostKey) -> None:
    """Raises HostKeyChanged, HostKeyRevoked unless the server has shown a pinned key."""
    if seen in known.revoked:
        raise HostKeyRevoked(
            f"{login.who}: {login.host_key_name} shows host key {seen}, which {known.revoked[seen]} has revoked: "
            f"whoever stole it can pose as it. Make a new one on its console, then run `{login.trust_command}`"
        )
    if seen in known.pinned:
        return
    kinds = {key.kind for key in known.pinned}
    alike = [key for key in known.pinned if key.kind == seen.kind] or list(known.pinned)
    lacks = "" if seen.kind in kinds else f" It has no {' or '.join(sorted(kinds))} key any more."
    raise HostKeyChanged(
        f"{login.who}: {login.host_key_name} shows host key {seen}, pinned is {alike[0]}: "
        f"another machine or a new image.{lacks} Compare with {on_console(seen)} on its console; "
        f"then remove the line {known.pinned[alike[0]]} and run `{login.trust_command}`"
    )


def on_console(key: HostKey) -> str:
    """The command that shows a machine its own key."""
    name = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(key.kind, "ecdsa")
    return f"`ssh-keygen -lf /etc/ssh/ssh_host_{name}_key.pub`"


def add(login: Login, key: HostKey) -> None:
    """Pins a key, in the first of the login's files. Raises UsageError where that cannot be written."""
    path = login.known_hosts[0]
    line = f"{login.host_key_name} {key.kind} {base64.b64encode(key.blob).decode()}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            line = "\n" + line
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: name a file that can be written as `known_hosts`") from error


def _lines(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """(place, line) of what is no comment."""
    for path in files:
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"{path}: cannot read known hosts: {error.strerror}: see `known_hosts`") from error
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip() and not line.lstrip().startswith(b"#"):
                yield f"{path}:{number}", line


def _names(names: bytes, host: str) -> bool:
    """Whether a line is about a host: its patterns (`*`, `?`, negated by `!`), or its one hashed name."""
    if names.startswith(b"|"):
        try:
            _, version, salt, digest = names.split(b"|")
            hashed = hmac.digest(base64.b64decode(salt, validate=True), host.lower().encode(), "sha1")
            return version == b"1" and hmac.compare_digest(hashed, base64.b64decode(digest, validate=True))
        except ValueError:  # binascii.Error is one
            return False
    found = False
    for pattern in names.decode("utf-8", "replace").lower().split(","):
        # brackets are part of names ("[host]:port"), not sets as in a file's name
        if fnmatch.fnmatchcase(host.lower(), pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _key(words: Sequence[bytes]) -> HostKey | None:
    """From a line's second and third word; None where they are no key."""
    if len(words) < 2:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return None
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    return HostKey(kind.decode("ascii"), blob) if kind and kind == words[0] and kind.isascii() else None


def _and(places: Iterable[str]) -> str:
    return " and ".join(places)
