"""Why a board does not keep a file, from what its shell says in English (LC_ALL=C), and what to do about that."""

from __future__ import annotations

from hil.errors import BoardError, BoardFull

ENGLISH = ("env", "LC_ALL=C")  # before a command whose message is read here
FULL = ("no space left", "quota exceeded", "file too large", "no space available")
FORBIDDEN = ("permission denied", "not permitted")


def last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip()[:300] if lines else "no message"


def refusal(board: str, what: str, said: str) -> BoardError:
    """The error for `what` ("cannot make /x"), whose cause stands in the output `said`."""
    lower = said.lower()
    where = f"board {board}: {what}: {last_line(said)}"
    if any(text in lower for text in FULL):
        return BoardFull(f"{where}: its disk or quota is full: free space there (see `df`)")
    if "read-only file system" in lower:
        return BoardError(f"{where}: remount it writable, or name another `workdir` in boards.toml")
    if any(text in lower for text in FORBIDDEN):
        return BoardError(f"{where}: its user may not write there: name a `workdir` in boards.toml that it may")
    if "input/output error" in lower:
        return BoardError(f"{where}: its disk fails: see `dmesg` there")
    return BoardError(f"{where}: see `workdir` in boards.toml")
