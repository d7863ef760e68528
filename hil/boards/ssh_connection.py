"""A connection to a board's SSH server: the way there, its host key, our key."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hil.boards.config import BoardConfig
from hil.boards.connection_errors import Attempt, Heard, no_forwarding, no_handshake, not_let_in, proxy_ended
from hil.boards.hostkeys import HostKey, KnownKeys, add, check, known_keys, on_console, require_pinned
from hil.boards.login import Login, find_login
from hil.boards.private_keys import Offer, Offers, find_offers, open_agent
from hil.boards.proxy_command import ProxyCommand
from hil.boards.ssh_errors import raised, reason
from hil.boards.ssh_socket import open_socket, quiet_paramiko

CHANNEL_TIMEOUT_S = 15.0
KEEPALIVE_S = 5


class Closable(Protocol):
    def close(self) -> None: ...


class SSHConnection:
    """paramiko's transport, with what it goes through: a socket, a program, another server's connection."""

    def __init__(self, transport: Any, below: Sequence[Closable]) -> None:
        self._transport = transport
        self._below = below

    def get_transport(self) -> Any:
        return self._transport

    def close(self) -> None:
        for each in (self._transport, *self._below):
            with suppress(*raised()):
                each.close()


@dataclass(frozen=True)
class Pinned:
    """A host key that known_hosts has now.

    Attributes:
        server: its name there; of a jump host with a word about that.
        compare: the command that shows the machine its own key.
    """

    server: str
    fingerprint: str
    compare: str


def connect(config: BoardConfig) -> SSHConnection:
    """Logged in. Raises Unreachable, HostKeyUnknown, HostKeyChanged, HostKeyRevoked, UsageError."""
    login = find_login(config)
    for server in login.way():  # what is missing here is better known before the network is touched
        require_pinned(server, known_keys(server))
    return _logged_in(login)


def pin(config: BoardConfig) -> Iterator[Pinned]:
    """Fetches the host keys on the way to a board, its own last, and appends those that are new to known_hosts.

    Raises HostKeyChanged when another key is pinned, HostKeyRevoked, Unreachable, UsageError.
    """
    yield from map(_pinned, find_login(config).way())


@dataclass(frozen=True)
class Greeting:
    """A server that has shown its host key.

    Attributes:
        heard: what it says while it is listened to.
    """

    connection: SSHConnection
    host_key: HostKey
    heard: Heard


def _pinned(login: Login) -> Pinned:
    known = known_keys(login)
    with _greeted(login, known) as greeting:
        greeting.connection.close()
    seen = greeting.host_key
    if known.pinned or seen in known.revoked:
        check(login, known, seen)
    else:
        add(login, seen)
    jump = f", a jump host of {login.board}" if login.config.name != login.board else ""
    return Pinned(f"{login.host_key_name}{jump}", seen.fingerprint, on_console(seen))


def _logged_in(login: Login) -> SSHConnection:
    known = known_keys(login)
    agent = open_agent(login)
    try:
        offers = find_offers(login, agent)
        with _greeted(login, known) as greeting:
            check(login, known, greeting.host_key)
            transport = greeting.connection.get_transport()
            failure = _log_in(transport, login.config.user, offers)
            if failure is not None:
                raise not_let_in(login, failure, greeting.heard)
            transport.set_keepalive(KEEPALIVE_S)
            return greeting.connection
    finally:
        agent.close()


@contextmanager
def _greeted(login: Login, known: KnownKeys) -> Iterator[Greeting]:
    """The connection stays open, unless what is done with it fails."""
    import paramiko

    quiet_paramiko()
    link, below = _link(login)
    transport = paramiko.Transport(link)
    connection, heard = SSHConnection(transport, below), Heard(transport)
    begin = time.monotonic()
    try:
        transport.banner_timeout = transport.auth_timeout = login.config.connect_timeout_s
        transport.channel_timeout = CHANNEL_TIMEOUT_S
        options = transport.get_security_options()
        options.key_types = known.preferred(options.key_types)
        try:
            transport.start_client(timeout=login.config.connect_timeout_s)
            key = transport.get_remote_server_key()
        except raised() as error:
            if isinstance(below[0], ProxyCommand) and not transport.remote_version:
                raise proxy_ended(login, below[0].fault()) from error
            raise no_handshake(login, error, heard, transport, time.monotonic() - begin) from error
        yield Greeting(connection, HostKey(key.get_name(), key.asbytes()), heard)
    except BaseException:
        connection.close()
        raise
    finally:
        heard.close()


def _link(login: Login) -> tuple[Any, Sequence[Closable]]:
    """What the bytes go through, and what has to be closed with it."""
    if login.command:
        proxy = ProxyCommand(login.where, login.command)
        return proxy.link, (proxy,)
    if login.via is None:
        connection = open_socket(login.config)
        return connection, (connection,)
    jump = _logged_in(login.via)
    try:
        channel = jump.get_transport().open_channel(
            "direct-tcpip",
            (login.config.host, login.config.port),
            ("127.0.0.1", 0),
            timeout=login.config.connect_timeout_s,
        )
    except raised() as error:
        jump.close()
        raise no_forwarding(login, login.via, error) from error
    return channel, (channel, jump)


def _log_in(transport: Any, user: str, offers: Offers) -> Attempt | None:
    """None when we are in, else how it failed."""
    import paramiko

    tried: list[Offer] = []
    attempt = Attempt(offers)
    # RSA last: where only SHA-1 is taken for it, paramiko ends the connection at the first such key
    for offer in sorted(offers.usable, key=lambda offer: offer.key.get_name() == "ssh-rsa"):
        tried.append(offer)
        attempt = replace(
            attempt,
            tried=tuple(each.name for each in tried),
            only_rsa=all(each.key.get_name() == "ssh-rsa" for each in tried),
        )
        try:
            further = transport.auth_publickey(user, offer.key)
        except paramiko.BadAuthenticationType as error:
            return replace(attempt, methods=tuple(error.allowed_types))
        except raised() as error:
            attempt = replace(attempt, said=reason(error))
            if "timeout" in str(error).lower():
                return replace(attempt, overdue=True)
            if not transport.is_active():
                # the agent's refusal ends the connection, too: paramiko signs where it reads
                unsigned = offer.agents and not isinstance(error, paramiko.AuthenticationException)
                return replace(attempt, unsigned=unsigned, ended=True)
        else:
            return replace(attempt, further=tuple(further)) if further else None
    try:  # images of vendors let root in without anything, as ssh would find out, too
        further = transport.auth_none(user)
    except paramiko.BadAuthenticationType as error:
        return replace(attempt, methods=tuple(error.allowed_types))
    except raised() as error:
        return replace(attempt, said=attempt.said or reason(error))
    return replace(attempt, further=tuple(further)) if further else None
