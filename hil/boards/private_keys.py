"""The private keys that we log in with, from files or from ssh-agent; and what a file is that holds none.

A file that cannot be used alone still says which of the agent's keys is meant: an encrypted one, or a public half.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hil.boards.login import Login
from hil.boards.ssh_config import NOTHING, variable
from hil.errors import UsageError

OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
MAGIC = b"openssh-key-v1\0"
NO_AGENT = "no ssh-agent runs"
NOT_ASKED = "ssh-agent is not asked"
MAKE = "make one with `ssh-keygen -t ed25519`"


@dataclass(frozen=True)
class Offer:
    """A key that can sign.

    Attributes:
        name: its file, or the agent's comment on it.
        key: paramiko's object.
        agents: whether ssh-agent holds it.
    """

    name: str
    key: Any
    agents: bool = False


@dataclass(frozen=True)
class Offers:
    """What we can log in with.

    Attributes:
        unusable: a sentence for each file that is meant and cannot be used.
        agent_fault: why ssh-agent has no key; empty where it has some.
    """

    usable: tuple[Offer, ...]
    unusable: tuple[str, ...]
    agent_fault: str


@dataclass(frozen=True)
class SSHAgent:
    """The keys of ssh-agent, by their public halves.

    Attributes:
        fault: why there are none; empty where there are some.
    """

    keys: dict[bytes, Offer] = field(default_factory=dict)
    fault: str = ""
    connection: Any = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()


def open_agent(login: Login) -> SSHAgent:
    """What ssh-agent holds now. Never raises: an agent is of help, not a condition."""
    import paramiko

    path = login.agent or os.environ.get("SSH_AUTH_SOCK", "")
    if path in ("", NOTHING):
        return SSHAgent(fault=NOT_ASKED if path else NO_AGENT)
    try:
        with variable("SSH_AUTH_SOCK", path):
            connection = paramiko.Agent()
        held = [key for key in connection.get_keys() if key.get_name()]  # an answer cut short has keys of zeros
        keys = {key.asbytes(): Offer(f"ssh-agent's {key.comment or key.get_name()}", key, True) for key in held}
    except Exception as error:  # whatever an agent's odd answer leads to
        return SSHAgent(fault=f"ssh-agent does not answer ({error or type(error).__name__})")
    return SSHAgent(keys, "" if keys else "ssh-agent holds no key", connection)


def find_offers(login: Login, agent: SSHAgent) -> Offers:
    """The files' keys first, then the agent's others. Raises UsageError for a file that boards.toml names."""
    usable: dict[bytes, Offer] = {}
    unusable = []
    for path in login.keys:
        try:
            offer = _offer(path, agent)
        except UsageError as error:
            if login.chosen:
                raise UsageError(f"{login.who}: {error} (`key` in boards.toml)") from error
            unusable.append(str(error))
        else:
            usable.setdefault(offer.key.asbytes(), offer)
    if login.other_keys:
        for blob, offer in agent.keys.items():
            usable.setdefault(blob, offer)
    return Offers(tuple(usable.values()), tuple(unusable), agent.fault)


def _offer(path: Path, agent: SSHAgent) -> Offer:
    """Raises UsageError that says what the file is instead of a usable key, and what to do about that."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"private key {path} does not exist: {MAKE}, or name another") from error
    except OSError as error:
        raise UsageError(f"private key {path} cannot be read ({error.strerror}): name another") from error
    try:
        fault = _foreign(path, content)
        if fault:
            raise UsageError(f"{path} {fault}")
        return Offer(str(path), _loaded(path, content, agent))
    except UsageError:
        public = _public_half(path, content)
        if public is not None and public in agent.keys:
            return agent.keys[public]
        raise


def _foreign(path: Path, content: bytes) -> str:
    """What a file is that is no private key in a form for SSH, and what to do; empty for one that may be."""
    lines = content.decode("utf-8", "replace").removeprefix("\ufeff").strip().splitlines()
    first = lines[0].strip() if lines else ""
    stem = path.with_suffix("") if path.suffix in (".pub", ".ppk") else path.with_name(f"{path.name}-openssh")
    if not lines:
        return "is empty: name the file of a private key"
    if first.startswith("PuTTY-User-Key-File"):
        return f"is a PuTTY key: `puttygen {path} -O private-openssh -o {stem}` converts it, then name {stem}"
    if first.startswith(("ssh-", "ecdsa-", "sk-")) or "PUBLIC KEY" in first:
        private = stem if path.suffix == ".pub" else "the private half"
        return f"is the public half of a key, which belongs on the board: name {private}"
    if "BEGIN DSA" in first:
        return f"is a DSA key, which SSH no longer takes: {MAKE}"
    if not (first.startswith("-----BEGIN ") and "PRIVATE KEY" in first):
        return f"is no private key (it begins with {first[:30]!r}): {MAKE}, or name another"
    return ""


def _loaded(path: Path, content: bytes, agent: SSHAgent) -> Any:
    """Whatever format the file has, cryptography reads it, and paramiko gets OpenSSH's. Raises UsageError."""
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    kinds = {
        ed25519.Ed25519PrivateKey: "Ed25519Key",
        rsa.RSAPrivateKey: "RSAKey",
        ec.EllipticCurvePrivateKey: "ECDSAKey",
    }
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    load = form.load_ssh_private_key if content.lstrip().startswith(OPENSSH) else form.load_pem_private_key
    try:
        key = load(content, None)
        name = next((name for kind, name in kinds.items() if isinstance(key, kind)), None)
        if name is None:
            raise UsageError(f"{path} is a {type(key).__name__.lstrip('_')}, which is no key for SSH: {MAKE}")
        text = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()).decode()
        loaded = getattr(paramiko, name).from_private_key(io.StringIO(text))
    except TypeError as error:  # a passphrase is wanted, and nobody is here to type it
        todo = {
            NO_AGENT: 'run `eval "$(ssh-agent)"`, then ',
            NOT_ASKED: "remove `IdentityAgent none` from ~/.ssh/config, then ",
        }
        why = agent.fault or "ssh-agent does not hold it"
        raise UsageError(f"{path} is encrypted and {why}: {todo.get(why, 'run ')}`ssh-add {path}`") from error
    except (UnsupportedAlgorithm, ValueError, paramiko.SSHException) as error:
        raise UsageError(f"{path} cannot be read as a private key ({error}): {MAKE}, or restore it") from error
    certificate = path.with_name(f"{path.name}-cert.pub")
    if certificate.is_file():
        try:
            loaded.load_certificate(str(certificate))
        except Exception as error:  # whatever a damaged file leads to
            raise UsageError(f"{certificate} is no certificate of {path} ({error}): remove or renew it") from error
    return loaded


def _public_half(path: Path, content: bytes) -> bytes | None:
    """As it can be read without a passphrase: in the file itself, or in the .pub beside it."""
    if content.lstrip().startswith(OPENSSH):
        return _public_in_openssh(b"".join(content.split(b"-----")[2].split()))
    for text in (content, _content(path.with_name(f"{path.name}.pub"))):
        words = text.split(None, 2)
        if len(words) > 1 and words[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
            return _decoded(words[1])
    return None


def _public_in_openssh(encoded: bytes) -> bytes | None:
    """The public key precedes what is encrypted (openssh-portable/PROTOCOL.key)."""
    data = _decoded(encoded) or b""
    if not data.startswith(MAGIC):
        return None
    at = len(MAGIC)
    for _ in range(3):  # cipher, key derivation, its options
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    at += 4  # the number of keys, always 1
    size = int.from_bytes(data[at : at + 4], "big")
    return data[at + 4 : at + 4 + size]


def _decoded(encoded: bytes) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
