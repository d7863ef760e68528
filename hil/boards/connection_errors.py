"""Why a connection to an SSH server does not come about, and what to do about that: one cause, one advice."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hil.boards.login import DEFAULT_KEYS, SSH_PORT, Login
from hil.boards.private_keys import MAKE, Offers
from hil.boards.ssh_errors import reason
from hil.errors import BoardError, Unreachable

# Names of algorithms that rest on SHA-1, MD5, CBC or RC4: what servers of before 2016 have.
OLD = re.compile(r".*-sha1(-96)?|ssh-rsa|ssh-dss|arcfour.*|.*-cbc(@.*)?|hmac-md5.*|hmac-ripemd.*")
NEW_ENOUGH = "OpenSSH 7.2, Dropbear 2020.79 or newer"
HEARD_LINES = 200


@dataclass(frozen=True)
class Negotiated:
    """One thing that client and server have to agree on.

    Attributes:
        said: a word of paramiko's error about it.
        heard: how the server's list of it begins in paramiko's log.
        name: in our words.
        setting: of sshd_config.
        ours: of paramiko's security options.
    """

    said: str
    heard: str
    name: str
    setting: str
    ours: str


NEGOTIATED = (
    Negotiated("kex", "kex algos: ", "key exchanges", "KexAlgorithms", "kex"),
    Negotiated("host key", "server key: ", "signatures of its host key", "HostKeyAlgorithms", "key_types"),
    Negotiated("ciphers", "server encrypt: ", "ciphers", "Ciphers", "ciphers"),
    Negotiated("macs", "server mac: ", "MACs", "MACs", "digests"),
    Negotiated("compression", "server compress: ", "compressions", "Compression", "compression"),
)


@dataclass(frozen=True)
class Attempt:
    """A login that failed.

    Attributes:
        tried: the keys, by name.
        only_rsa: whether all of those were RSA keys.
        methods: what the server takes, as far as it said.
        further: what it wants besides a key.
        unsigned: whether ssh-agent did not sign with the last of them.
        ended: whether it closed the connection.
        overdue: whether it did not answer.
        said: paramiko's reason.
    """

    offers: Offers
    tried: tuple[str, ...] = ()
    only_rsa: bool = False
    methods: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    unsigned: bool = False
    ended: bool = False
    overdue: bool = False
    said: str = ""


class Heard(logging.Handler):
    """What a server says and paramiko only logs, while a connection is made."""

    def __init__(self, transport: Any) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._transport, self._before = transport, transport.logger
        transport.logger = logging.Logger("hilnas", logging.DEBUG)  # no child of the root: nobody else hears it
        transport.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < HEARD_LINES:
            self.lines.append(record.getMessage())

    def after(self, start: str) -> str:
        """The rest of the first line that begins so; empty where there is none."""
        return next((line.removeprefix(start) for line in self.lines if line.startswith(start)), "")

    def farewell(self) -> str:
        """Why the server ended the connection, in its words."""
        found = [match[1] for line in self.lines if (match := re.match(r"Disconnect \(code \d+\): (.+)", line))]
        return found[-1] if found else ""

    def close(self) -> None:
        self._transport.logger = self._before
        super().close()


def no_handshake(login: Login, error: Exception, heard: Heard, transport: Any, waited_s: float) -> BoardError:
    """The connection stands, and no host key came over it."""
    import paramiko

    overdue = waited_s >= login.config.connect_timeout_s
    within = f"within {login.config.connect_timeout_s:g} s"
    if isinstance(error, paramiko.IncompatiblePeer):
        return _incompatible(login, error, heard, transport)
    if transport.remote_version:
        why = f"does not end {within}: restart it" if overdue else f"fails ({heard.farewell() or reason(error)})"
        todo = "" if overdue else ": see its SSH server's log"
        return Unreachable(f"{login.where}: the key exchange with {transport.remote_version} {why}{todo}")
    greeting = heard.after("Banner: ")
    if greeting:
        crowded = re.search("MaxStartups|[Nn]ot allowed", greeting)
        todo = "wait, or see its SSH server's log" if crowded else "fix `host` or `port`"
        return Unreachable(f"{login.where} greets with {greeting[:80]!r} and not as an SSH server does: {todo}")
    if overdue:
        return Unreachable(f"{login.where} accepts connections but sends nothing {within}: restart it")
    return Unreachable(
        f"{login.where} accepts connections and closes them before a word ({reason(error)}): "
        "it may ban this machine or have too many clients: see its SSH server's log, hosts.deny and firewall"
    )


def _incompatible(login: Login, error: Exception, heard: Heard, transport: Any) -> BoardError:
    server = f"{login.where}: its SSH server ({transport.remote_version})"
    thing = next((each for each in NEGOTIATED if each.said in str(error)), None)
    offered = heard.after(thing.heard).split(", ") if thing else []
    if thing is None or not offered[0]:
        return Unreachable(f"{server} speaks another SSH than ours ({reason(error)}): update it to {NEW_ENOUGH}")
    names = [name for name in offered if not name.startswith(("ext-info-", "kex-strict-"))]
    if all(OLD.fullmatch(name) for name in names):
        keys = ", or make it another host key (`ssh-keygen -A` there)" if thing.said == "host key" else ""
        return Unreachable(
            f"{server} offers only {thing.name} that are no longer safe ({_listed(names)}): "
            f"update it to {NEW_ENOUGH}{keys}"
        )
    ours = [name for name in getattr(transport.get_security_options(), thing.ours) if not OLD.fullmatch(name)]
    return Unreachable(
        f"{server} offers only {thing.name} that are not known here ({_listed(names)}): "
        f"allow one of {_listed(ours)} as {thing.setting} in its sshd_config"
    )


def not_let_in(login: Login, attempt: Attempt, heard: Heard) -> BoardError:
    """The server is the right one, and we cannot log in."""
    user, keys, limit_s = login.config.user, _listed(attempt.tried), login.config.connect_timeout_s
    more = "".join(f"; {note}" for note in (*attempt.offers.unusable, *login.notes))
    if attempt.overdue:
        return Unreachable(f"{login.where}: the login of {user} is not answered within {limit_s:g} s: restart it")
    if attempt.further:
        why = f"the key of {user} is taken, but {_listed(attempt.further)} is wanted as well, which we never give"
        return Unreachable(f"{login.where}: {why}: let a key suffice (AuthenticationMethods in its sshd_config)")
    if "gree on a pubkey algorithm" in attempt.said:
        how = f"takes RSA keys only with SHA-1 signatures, which are no longer safe, and we have only {keys}"
        return Unreachable(
            f"{login.where}: its SSH server {how}: {MAKE} and put it there, or update it to {NEW_ENOUGH}{more}"
        )
    if attempt.unsigned:
        why = (
            f"{attempt.tried[-1]} does not sign ({attempt.said}): see what ssh-agent asks for, or name a file as `key`"
        )
        return Unreachable(f"{login.where}: {why}{more}")
    if attempt.ended:
        what = f"its SSH server ends the connection after {keys} ({heard.farewell() or attempt.said})"
        todo = "name the right one as `key`" if len(attempt.tried) > 1 else "see its log"
        return Unreachable(f"{login.where}: {what}: {todo}{more}")
    if attempt.methods and "publickey" not in attempt.methods:
        how = f"takes no keys, only {_listed(attempt.methods)}"
        return Unreachable(f"{login.where}: its SSH server {how}: set PubkeyAuthentication yes in its sshd_config")
    port = "" if login.config.port == SSH_PORT else f"-p {login.config.port} "
    copy = f"`ssh-copy-id {port}{user}@{login.config.host}`"
    if not attempt.tried:
        nowhere = f"{attempt.offers.agent_fault}, and ~/.ssh has no {', '.join(DEFAULT_KEYS)}: {MAKE}, then {copy}"
        why = "; ".join(attempt.offers.unusable) or nowhere
        return Unreachable(f"{login.where}: no key to log in with: {why}")
    todo = f"add its public half to authorized_keys there ({copy})"
    if attempt.only_rsa:
        todo += (
            "; if it is there, that server may take RSA only with SHA-1, with which we never sign: try an ed25519 key"
        )
    if user == "root":
        todo += "; PermitRootLogin there has to allow keys"
    return Unreachable(f"{login.where}: {user} is not let in with {keys}: {todo}{more}")


def no_forwarding(login: Login, via: Login, error: Exception) -> BoardError:
    """The jump host does not lead on to a server."""
    import paramiko

    target = f"{login.config.host} port {login.config.port}"
    if isinstance(error, paramiko.ChannelException) and error.code == paramiko.OPEN_FAILED_CONNECT_FAILED:
        return Unreachable(f"{via.who} cannot reach {target} ({error.text}): is it on, and on the jump host's network?")
    if isinstance(error, paramiko.ChannelException):
        return Unreachable(
            f"{via.who} does not lead on to {target} ({error.text}): set AllowTcpForwarding yes in its sshd_config"
        )
    return Unreachable(f"{via.who} does not lead on to {target} ({reason(error)}): is that on, and the jump host well?")


def proxy_ended(login: Login, said: str) -> BoardError:
    return Unreachable(f"{login.where}: its ProxyCommand leads nowhere ({said}): try it in a shell: {login.command}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
