"""What comes before an SSH session: a TCP connection that notices a dead peer, and a quiet paramiko."""

from __future__ import annotations

import logging
import socket

from hil.boards.config import BoardConfig
from hil.boards.ssh_errors import reason
from hil.errors import Unreachable, UsageError


def open_socket(config: BoardConfig) -> socket.socket:
    """A TCP connection that the kernel gives up after 20 s without an acknowledgement.

    Raises Unreachable, UsageError for what is no host name at all.
    """
    try:
        connection = socket.create_connection((config.host, config.port), timeout=config.connect_timeout_s)
    except OSError as error:
        where = f"board {config.name}: {config.host} port {config.port}"
        raise Unreachable(f"{where}: {reason(error)}: {_advice(error)}") from error
    except ValueError as error:  # also UnicodeError: a label of more than 63 characters, an empty one
        raise UsageError(f"board {config.name}: {config.host[:100]!r} is no host name: fix `host`") from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
    return connection


def _advice(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "fix `host`, or this machine's name service; an IP address works without one"
    if isinstance(error, ConnectionRefusedError):
        return "no SSH server listens there: is it on, and done booting? Start the server, or fix `port`"
    return "is it on, and on this network?"


def quiet_paramiko() -> None:
    """paramiko's threads log tracebacks, printed where nobody set logging up; our errors carry the reason."""
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
