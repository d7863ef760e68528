"""Files on the board under their content: `<workdir>/objects/<sha256><suffix>`, uploaded once.

A batch travels as one tar file, five times faster than a thousand files one by one; it is unpacked aside,
every hash is verified on the board, and only then are the files renamed into place. A file in `objects` is
therefore whole, whenever anything was killed.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from hil.boards.board import Board
from hil.boards.refusal import ENGLISH, last_line, refusal
from hil.errors import BoardError, BoardFull, UsageError
from hil.scripts import run_script

BATCH_FILES = 1000  # the board's shell lists them on one command line: `mv *`
BATCH_BYTES = 256 << 20  # /tmp is often memory
UNPACK_TIMEOUT_S = 120.0

# $1: the folder to unpack in, which holds batch.tar; $2: objects. POSIX tools, BusyBox may have them all. Where one is
# missing or of another kind, the board's Python does the same: board_scripts/unpack_batch.py.
UNPACK = """
cd "$1" && mkdir new && tar -xf batch.tar -C new && cd new && sha256sum -c sums >&2 && rm -f sums &&
mv -f -- * "$2"/ && cd / && rm -rf -- "$1"
"""
REMOVE = 'cd "$1" && while read -r name; do rm -f -- "$name"; done'  # their names come over stdin
DAMAGED = 3  # unpack_batch.py's exit code


def sha256_of(path: Path) -> str:
    """Raises UsageError when the file cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: name a file that can be read") from error
    return digest.hexdigest()


class Stage:
    """The objects folder of one board. Lists it once, then remembers what it holds."""

    def __init__(self, board: Board, workdir: str, quota_bytes: int = 1 << 62) -> None:
        self._board = board
        self._quota_bytes = quota_bytes
        self._workdir = workdir.rstrip("/")
        self._objects = f"{self._workdir}/objects"
        self._held: dict[str, int] | None = None  # object name to size in bytes
        self._sha256: dict[tuple[Path, int, int], str] = {}

    def stage(self, local: Path) -> str:
        """The file's path on the board, where it is when this returns."""
        return self.stage_many([local])[Path(local)]

    def stage_many(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Like `stage`, for many in few round trips. Raises UsageError, BoardFull, BoardError."""
        objects = {Path(path): self._object_name(Path(path)) for path in paths}
        held = self._list()
        missing = {name: path for path, name in objects.items() if held.get(name) != path.stat().st_size}
        self._make_room(sum(path.stat().st_size for path in missing.values()), set(objects.values()))
        for batch in _batches(list(missing.items())):
            self._upload(batch)
            held.update((name, path.stat().st_size) for name, path in batch)
        return {path: f"{self._objects}/{name}" for path, name in objects.items()}

    def discard(self, paths: Iterable[Path]) -> None:
        """These files are not needed there again; what else has their content goes with them."""
        names = dict.fromkeys(map(self._object_name, paths))
        self._remove([name for name in names if name in self._list()])

    def forget(self) -> None:
        """The board may have rebooted or been cleaned: list it anew the next time."""
        self._held = None

    def _make_room(self, wanted_bytes: int, kept: set[str]) -> None:
        """Lets the objects that were listed first go, until the quota holds what is wanted. Raises BoardFull."""
        held = self._list()
        over = sum(held.values()) + wanted_bytes - self._quota_bytes
        leaving: list[str] = []
        for name in [name for name in held if name not in kept]:
            if over <= 0:
                break
            over -= held[name]
            leaving.append(name)
        if over > 0:
            raise BoardFull(
                f"board {self._board.name}: these files need {over >> 20} MB more than the quota: "
                "raise quota_mb in boards.toml, or measure fewer at once"
            )
        self._remove(leaving)

    def _remove(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), BATCH_FILES):
            batch = "".join(f"{name}\n" for name in names[start : start + BATCH_FILES]).encode()
            self._board.run(["sh", "-c", REMOVE, "sh", self._objects], UNPACK_TIMEOUT_S, batch)
        for name in names:
            del self._list()[name]

    def _object_name(self, path: Path) -> str:
        try:
            status = path.stat()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}: name a file that exists") from error
        key = (path, status.st_mtime_ns, status.st_size)
        if key not in self._sha256:
            self._sha256[key] = sha256_of(path)
        suffix = path.suffix if path.suffix[1:].isalnum() and path.suffix.isascii() else ""
        return self._sha256[key] + suffix

    def _list(self) -> dict[str, int]:
        if self._held is None:
            script = 'mkdir -p "$1" && ls -lnrtc "$1"'
            listed = self._board.run([*ENGLISH, "sh", "-c", script, "sh", self._objects], UNPACK_TIMEOUT_S)
            if listed.exit_code:
                raise refusal(self._board.name, f"cannot make or list {self._objects}", listed.stderr)
            rows = [line.split() for line in listed.stdout.splitlines()]
            self._held = {row[-1]: int(row[4]) for row in rows if len(row) >= 9 and row[0].startswith("-")}
        return self._held

    def _upload(self, batch: Sequence[tuple[str, Path]]) -> None:
        folder = f"{self._workdir}/incoming-{uuid.uuid4().hex[:12]}"
        made = self._board.run([*ENGLISH, "mkdir", "-p", folder], UNPACK_TIMEOUT_S)
        if made.exit_code:
            raise refusal(self._board.name, f"cannot make {folder}", made.stderr)
        with tempfile.TemporaryDirectory(prefix="hilnas-stage-") as here:
            archive = Path(here) / "batch.tar"
            _write_tar(archive, batch)
            try:
                self._board.put(archive, f"{folder}/batch.tar")
            except BoardFull:
                self._board.run(["rm", "-rf", folder], UNPACK_TIMEOUT_S)
                raise
        self._unpack(folder, len(batch))

    def _unpack(self, folder: str, files: int) -> None:
        done = self._board.run(["sh", "-c", UNPACK, "sh", folder, self._objects], UNPACK_TIMEOUT_S)
        if done.exit_code:
            done = run_script(self._board, "unpack_batch.py", folder, self._objects, timeout_s=UNPACK_TIMEOUT_S)
        what = f"{files} files did not arrive whole"
        if done.exit_code == DAMAGED:
            said = f"{what}: {last_line(done.stderr)}"
            raise BoardError(f"board {self._board.name}: {said}: run again; if it persists, see `dmesg` there")
        if done.exit_code:
            raise refusal(self._board.name, what, done.stderr)


def stage(board: Board, local: Path, workdir: str) -> str:
    """One file, without a memory of what is there: see Stage."""
    return Stage(board, workdir).stage(local)


def stage_many(board: Board, paths: Iterable[Path], workdir: str) -> dict[Path, str]:
    """Many files, without a memory of what is there: see Stage."""
    return Stage(board, workdir).stage_many(paths)


def _batches(files: Sequence[tuple[str, Path]]) -> Iterable[list[tuple[str, Path]]]:
    batch: list[tuple[str, Path]] = []
    size = 0
    for name, path in files:
        more = path.stat().st_size
        if batch and (len(batch) == BATCH_FILES or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((name, path))
        size += more
    if batch:
        yield batch


def _write_tar(archive: Path, batch: Sequence[tuple[str, Path]]) -> None:
    """The files under their object names, and `sums` to verify them by."""
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in batch:
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)
        sums = "".join(f"{name[:64]}  {name}\n" for name, _ in batch).encode()
        member = tarfile.TarInfo("sums")
        member.size, member.mode = len(sums), 0o644
        tar.addfile(member, io.BytesIO(sums))
