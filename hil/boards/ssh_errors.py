"""What paramiko, its SFTP client and the socket raise, as our errors: the one place that knows it.

paramiko has its own tree, lets EOFError and OSError through where a link breaks, and raises whatever its parsers run
into where the other side sends nonsense.
"""

from __future__ import annotations

import struct
from functools import cache


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
