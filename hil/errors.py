"""What can go wrong, split by who acts.

    HilError
    ├── CheckFailed        exit 1   a check did not hold: read the numbers
    ├── UsageError         exit 2   fix the call or the configuration
    ├── BoardError         exit 3   fix the bench
    │   ├── Unreachable             no answer on the network, or nobody lets us in
    │   ├── HostKeyUnknown          the board's host key was never pinned
    │   ├── HostKeyChanged          another key than the pinned one answers
    │   ├── HostKeyRevoked          known_hosts has revoked the key that answers
    │   ├── LinkLost                the connection or the process on the board ended
    │   ├── BoardFull               the board's disk takes no more
    │   ├── BoardBusy               somebody else is on it
    │   ├── BoardFault              something on it is missing or refuses: a file, a library, the heat
    │   └── BoardTimeout            the board is connected and does not answer in time
    ├── ModelError         exit 4   fix the model
    └── Incomparable       exit 5   nothing, or nothing alike, to compare with

Every message is one line that names the thing (file, key, board, command) and the next step.
"""

# ruff: noqa: N818 - a leaf names what happened; "...Error" is kept for who acts

from __future__ import annotations


class HilError(Exception):
    """The root of the tree.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code: int = 3

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__("".join(char if char.isprintable() else "?" for char in line))  # no escape codes of others


class CheckFailed(HilError):
    exit_code = 1


class UsageError(HilError):
    exit_code = 2


class BoardError(HilError):
    exit_code = 3


class Unreachable(BoardError):
    """No route, refused, no SSH banner, or no key that the board accepts."""


class HostKeyUnknown(BoardError):
    """Nobody has pinned this board's host key yet."""


class HostKeyChanged(BoardError):
    """Another host key than the pinned one answered: another machine, or a new image on it."""


class HostKeyRevoked(BoardError):
    """The key that answered, or the only one known, is marked @revoked."""


class LinkLost(BoardError):
    """The connection broke, or the process on the board ended, before it answered."""


class BoardFull(BoardError):
    """The board stored fewer bytes than were sent."""


class BoardBusy(BoardError):
    """Somebody else measures on the board, or has reserved it."""


class BoardFault(BoardError):
    """A fault of the board, not of the model: a file or a library is missing there, or it stays too hot."""


class BoardTimeout(BoardError):
    """The board is there and did not finish within the deadline."""


class ModelError(HilError):
    exit_code = 4


class Incomparable(HilError):
    exit_code = 5
