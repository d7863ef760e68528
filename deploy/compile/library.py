"""Every subnet of a space as a file: on any engine, resumable, one flat folder with an index.

Files are named by their sha256. `index.jsonl` begins with what the library was made of; then it has a line for each
sub-tree (block, bits, first layer's choice) whose files are all on disk, with the subnet of each file. Every file names
its subnet in its metadata, so no two subnets share one.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from deploy.compile.subtrees import SubTree, sub_trees
from deploy.compile.weights import Origin
from deploy.formats.files import write_atomically
from deploy.formats.journal import ForeignJournalError, Journal
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from hil.errors import UsageError
from nas.engine.protocol import Engine
from nas.errors import EngineError
from nas.training.threads import one_thread

INDEX, LOCK = "index.jsonl", ".lock"


@dataclass(frozen=True)
class SubnetFile:
    """A subnet's file: its name in the library's folder and its length, and the subnet's weight bits and MACs."""

    subnet: str
    file: str
    bytes: int
    size_bits: int
    macs: int

    def is_whole(self, out: Path) -> bool:
        return _holds(out / self.file, self.bytes)


@dataclass(frozen=True)
class Branch:
    """A line of the index: a sub-tree's name, and its files."""

    branch: str
    subnets: tuple[SubnetFile, ...]


def write_branch(origin: Origin, form: Form, out: Path, tree: SubTree) -> Branch:
    """Compile the subnets of one sub-tree into `out`. A file that is there already is kept."""
    files = []
    with one_thread():  # the other cores have sub-trees of their own
        for subnet, graph in origin.graphs(tree.subnets):
            content = write(graph, origin.metadata(subnet, form), form)
            path = out / f"{hashlib.sha256(content).hexdigest()}.tflite"
            if not _holds(path, len(content)):
                write_atomically(path, content, durable=False)
            files.append(SubnetFile(str(subnet), path.name, len(content), graph.size_bits, graph.macs))
    return Branch(str(tree), tuple(files))


def _holds(path: Path, size: int) -> bool:
    """Whether a file is there as a whole: what was not flushed before a power cut may be shorter."""
    with suppress(FileNotFoundError):
        return path.stat().st_size == size
    return False


@contextmanager
def _opened(out: Path, library: dict[str, object]) -> Iterator[tuple[Journal[Branch], dict[str, Branch]]]:
    """The locked library's index, and the branches whose files are all there.

    Raises `UsageError` for the library of something else, or one that another process writes.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a") as lock:
        _lock(lock, out)
        index = Journal(out / INDEX, Branch, header={"library": library})
        try:
            listed = index.read()
        except ForeignJournalError as error:
            found = error.header and error.header.get("library")
            raise UsageError(f"{out}: {_difference(found, library)}; give another --out") from None
        done = {line.branch: line for line in listed if all(file.is_whole(out) for file in line.subnets)}
        index.rewrite(done.values())
        _clean(out)
        yield index, done


def _lock(file: IO[str], out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{out}: another hilnas writes this library; wait for it or give another --out") from None


def _clean(out: Path) -> None:
    """Remove what killed processes were writing."""
    for part in out.glob("*.part"):
        part.unlink()


def _check_files(out: Path, branch: Branch) -> None:
    """`EngineError` where a worker wrote a branch's files, but not here."""
    for file in branch.subnets:
        if not file.is_whole(out):
            raise EngineError(f"{out}: a worker's {file.subnet} is not here: put --out on storage they share")


def _difference(found: object, wanted: dict[str, object]) -> str:
    if not isinstance(found, dict):
        return f"its {INDEX} is not a library's"
    key = next((key for key in wanted if found.get(key) != wanted[key]), "format")
    return f"holds another library ({key} {found.get(key)}, not {wanted.get(key)})"


def write_all(
    origin: Origin,
    bits: Sequence[int],
    out: Path,
    engine: Engine,
    form: Form = Form(),  # noqa: B008
) -> Iterator[tuple[int, int]]:
    """Compile every subnet at these bit widths, a sub-tree per task of `engine`; yields (subnets written, all).

    Goes on where it was stopped, and adds bit widths to a library that has others. Workers on other machines need
    `out`, and the origin's checkpoint, under the same path. Raises `UsageError` if `out` holds another library,
    `EngineError` if a sub-tree's workers were lost time and again or wrote elsewhere.
    """
    found_anywhere = replace(origin, checkpoint=origin.checkpoint and origin.checkpoint.resolve())
    task = partial(write_branch, found_anywhere, form, out.resolve())  # a worker may be in another folder
    trees = sub_trees(origin.space, bits=bits)
    total = sum(len(tree.subnets) for tree in trees)
    with _opened(out, origin.describe(form)) as (index, done):
        missing = [tree for tree in trees if str(tree) not in done]
        written = total - sum(len(tree.subnets) for tree in missing)
        yield written, total
        try:
            with closing(engine.each(task, missing)) as finished:
                for _, branch in finished:
                    _check_files(out, branch)
                    index.append(branch)
                    written += len(branch.subnets)
                    yield written, total
        finally:
            _clean(out)
