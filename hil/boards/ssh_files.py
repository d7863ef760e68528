"""Files to and from a board: by SFTP, or through a shell command, slower, where the board has no SFTP server.

SFTP has one word for a full disk, a read-only one and a dozen other reasons, a shell has one for each: what SFTP
refuses is therefore tried once more through a shell.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hil.boards.refusal import last_line, refusal
from hil.boards.ssh_process import BLOCK_BYTES, Output
from hil.errors import BoardError, UsageError

Converse = Callable[[Sequence[str], float, BinaryIO | None], Output]
"""Runs a command to its end, with a time limit in seconds and its stdin."""

NO_FOLDER, REFUSED, DAMAGED, NO_PROGRAM, NO_FILE, UNREADABLE = range(90, 96)  # exit codes of the scripts here

# $1: the file; $2: a Python. Prints the sha256, by whatever program the board has for that.
HASH = """LC_ALL=C; export LC_ALL
sum() {
    sha256sum <"$1" 2>/dev/null || openssl dgst -sha256 -r <"$1" 2>/dev/null ||
    "$2" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())' <"$1" 2>/dev/null
}
"""

# $1: the file that is written; $2: a Python; $3: the sha256 of stdin; $4: the name that the file takes when whole
PUT = f"""{HASH}
fail() {{ rm -f -- "$part"; exit "$1"; }}
part=$1
[ -d "${{part%/*}}/" ] || exit {NO_FOLDER}
cat >"$part" || fail {REFUSED}
case $(sum "$part" "$2") in
    "$3"*) mv -f -- "$part" "$4" || fail {REFUSED} ;;
    "") fail {NO_PROGRAM} ;;
    *) fail {DAMAGED} ;;
esac
"""

# $1: the file; $2: a Python. Its sha256 goes to stderr.
GET = f"""{HASH}
[ -e "$1" ] || exit {NO_FILE}
[ -f "$1" ] && [ -r "$1" ] || exit {UNREADABLE}
cat -- "$1" || exit {REFUSED}
got=$(sum "$1" "$2")
[ -n "$got" ] || exit {NO_PROGRAM}
echo "$got" >&2
"""


def put_by_sftp(sftp: Any, local: Path, remote: str) -> None:
    """Raises OSError where the server refuses."""
    part, size = f"{remote}.part", local.stat().st_size
    with local.open("rb") as source, sftp.file(part, "wb") as target:
        target.set_pipelined(True)  # a round trip for each block would be most of the time
        while block := source.read(BLOCK_BYTES):
            target.write(block)
        target.flush()
    written = int(sftp.stat(part).st_size)
    if written != size:
        raise OSError(f"took {written} of {size} bytes")
    sftp.posix_rename(part, remote)


def get_by_sftp(sftp: Any, remote: str) -> bytes:
    """Raises OSError where the server refuses."""
    data = io.BytesIO()
    sftp.getfo(remote, data)
    return data.getvalue()


@dataclass(frozen=True)
class ShellFiles:
    """Copies through a board's shell; `python` is what hashes where the board has no program for that."""

    converse: Converse
    board: str
    python: str

    def put(self, local: Path, remote: str, timeout_s: float) -> None:
        """Raises BoardFull, BoardError; UsageError where the file here cannot be read."""
        try:
            with local.open("rb") as file:
                wanted = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                argv = ["sh", "-c", PUT, "sh", f"{remote}.part", self.python, wanted, remote]
                done = self.converse(argv, timeout_s, file)
        except OSError as error:
            raise UsageError(f"{local}: {error.strerror}: name a file that can be read") from error
        if done.exit_code:
            raise _problem(self.board, remote, done)

    def get(self, remote: str, timeout_s: float) -> bytes:
        """Raises BoardError."""
        done = self.converse(["sh", "-c", GET, "sh", remote, self.python], timeout_s, None)
        if done.exit_code:
            raise _problem(self.board, remote, done)
        if hashlib.sha256(done.stdout).hexdigest().encode() not in done.stderr:
            raise BoardError(f"board {self.board}: {remote} changed while it was copied: copy it again")
        return done.stdout


def _problem(board: str, remote: str, done: Output) -> BoardError:
    said = done.stderr.decode("utf-8", "replace")
    known = {
        NO_FOLDER: f"no folder for {remote}: make it first",
        DAMAGED: f"{remote} arrived damaged: copy it again; if it persists, see `dmesg` there",
        NO_PROGRAM: f"no program there checks {remote} (sha256sum, openssl, Python): set `python` in boards.toml",
        NO_FILE: f"no file {remote} there",
        UNREADABLE: f"{remote} is no file that its user may read: see `ls -ld {remote}` there",
    }
    if done.exit_code in known:
        return BoardError(f"board {board}: {known[done.exit_code]}")
    if done.exit_code == REFUSED:
        return refusal(board, f"cannot copy {remote}", said)
    return BoardError(f"board {board}: copying {remote} failed there (exit {done.exit_code}): {last_line(said)}")
