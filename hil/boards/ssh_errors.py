"""What paramiko, its SFTP client and the socket raise, as our errors: the one place that knows it.

paramiko has its own tree, lets EOFError and OSError through where a link breaks, and raises whatever its parsers run
into where the other side sends nonsense.
"""

from __future__ import annotations

import struct
from functools import cache

from hil.errors import BoardBusy, BoardError, BoardTimeout, LinkLost

TOO_MANY = 4  # RFC 4254, 5.1: resource shortage


@cache
def raised() -> tuple[type[Exception], ...]:
    """All that a call of paramiko may raise: for `except raised() as error`, which imports it only when needed."""
    import paramiko
    from cryptography import exceptions as cryptography

    return (
        paramiko.SSHException,
        paramiko.SFTPError,
        EOFError,
        OSError,
        struct.error,
        ValueError,  # damaged base64, text that is no UTF-8, a key that is none
        LookupError,
        AttributeError,  # a transport that closes sets to None what a call still uses
        TypeError,
        cryptography.InvalidTag,
        cryptography.InvalidSignature,
        cryptography.UnsupportedAlgorithm,
        cryptography.InternalError,
    )


def reason(error: BaseException) -> str:
    """What it says, in one line; its type where it says nothing."""
    said = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return said.rstrip(".") or type(error).__name__


def lost(board: str, doing: str, why: str = "") -> LinkLost:
    detail = f" ({why})" if why else ""
    return LinkLost(
        f"board {board}: the link was lost during {doing}{detail}: "
        "check cable, power and `uptime` on the board, then run again"
    )


def as_ours(board: str, doing: str, error: BaseException, *, linked: bool) -> BoardError:
    """The error that says what happened while the board did something; `linked`: the connection still stands."""
    import paramiko

    if isinstance(error, paramiko.SFTPError) and linked:
        return BoardError(
            f"board {board}: its SFTP server sends something else than SFTP ({reason(error)}) during {doing}: "
            "see the board's SSH server's log"
        )
    if isinstance(error, paramiko.ChannelException) and linked:
        if error.code == TOO_MANY:
            return BoardBusy(
                f"board {board} refuses {doing}: {reason(error)}: it has as many sessions as it takes: "
                "end other clients, or raise MaxSessions in its sshd_config"
            )
        return BoardError(f"board {board} refuses {doing}: {reason(error)}: see its SSH server's log")
    if isinstance(error, paramiko.SSHException) and "imeout opening channel" in str(error):
        return BoardTimeout(f"board {board} does not answer {doing}: it accepts no session now: restart it")
    if isinstance(error, (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError)):
        if linked:
            return BoardError(f"board {board} ended {doing}: {reason(error)}: see its SSH server's log")
        return lost(board, doing, "" if isinstance(error, EOFError) else reason(error))
    return BoardError(
        f"board {board} sends what no SSH client can read during {doing} ({type(error).__name__}: {reason(error)}): "
        "see its SSH server's log and version"
    )
