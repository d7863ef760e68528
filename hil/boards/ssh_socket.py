"""What comes before an SSH session: a TCP connection that notices a dead peer, and a quiet paramiko."""

from __future__ import annotations

import logging
import socket

from hil.boards.config import BoardConfig
from hil.errors import Unreachable


def open_socket(config: BoardConfig) -> socket.socket:
    """A TCP connection that the kernel gives up after 20 s without an acknowledgement. Raises Unreachable."""
    try:
        connection = socket.create_connection((config.host, config.port), timeout=config.connect_timeout_s)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise Unreachable(
            f"board {config.name}: {config.host} port {config.port}: {why}: "
            "is it on, on this network, and does its SSH server run?"
        ) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
    return connection


def quiet_paramiko() -> None:
    """paramiko's threads log tracebacks, printed where nobody set logging up; our errors carry the reason."""
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
