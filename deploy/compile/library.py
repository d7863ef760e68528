"""Every subnet of a space as a file: on any engine, resumable, one flat folder with an index.

Files are named by their sha256. `index.jsonl` holds a line that says what the library was made of, then one line for
each sub-tree (block, bits, first layer's choice) that is on disk as a whole, with the subnet of each file. Every file
names its subnet in its metadata, so no two subnets share one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from deploy.compile.weights import Origin
from deploy.formats.files import write_atomically
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from hil.errors import UsageError
from nas.engine.protocol import Engine
from nas.errors import EngineError
from nas.space import Choice, SearchSpace, Subnet
from nas.training.threads import one_thread

INDEX = "index.jsonl"


@dataclass(frozen=True)
class Branch:
    """A sub-tree of one block: everything whose first layer is `first`."""

    block: int
    bits: int
    first: Choice

    def __str__(self) -> str:
        return f"b{self.block}_{self.first}_w{self.bits}"

    def subnets(self, space: SearchSpace) -> list[Subnet]:
        return [s for s in space.subnets(self.block, self.bits) if s.choices[0] == self.first]


def branches(space: SearchSpace, bits: Sequence[int]) -> list[Branch]:
    """All sub-trees at these bit widths, the largest blocks first, so that the last ones to run are short."""
    blocks = sorted(range(1, len(space.blocks) + 1), key=lambda b: -space.blocks[b - 1].layers)
    return [Branch(b, width, choice) for b in blocks for width in bits for choice in space.choices]


def write_branch(origin: Origin, form: Form, out: Path, branch: Branch) -> list[dict[str, object]]:
    """Compile one sub-tree into `out`; a row for each subnet. A file that is there already is kept."""
    rows: list[dict[str, object]] = []
    with one_thread():  # the other cores have branches of their own
        for subnet, graph in origin.graphs(branch.subnets(origin.space)):
            content = write(graph, origin.metadata(subnet, form), form)
            path = out / f"{hashlib.sha256(content).hexdigest()}.tflite"
            if not _holds(path, len(content)):
                write_atomically(path, content, durable=False)
            row = {"subnet": str(subnet), "file": path.name, "bytes": len(content)}
            rows.append({**row, "size_bits": graph.size_bits, "macs": graph.macs})
    return rows


def _holds(path: Path, size: int) -> bool:
    """Whether a file is there as a whole: what was not flushed before a power cut may be shorter."""
    with suppress(FileNotFoundError):
        return path.stat().st_size == size
    return False


@contextmanager
def _opened(out: Path, library: dict[str, object]) -> Iterator[tuple[IO[str], dict[str, list[Any]]]]:
    """The index, locked and ready for more lines, and the rows of the branches that are whole in it.

    Raises `UsageError` for the library of something else, or one that another process writes.
    """
    path = out / INDEX
    try:
        out.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf8", errors="replace") as file:
            _lock(file, out)
            file.seek(0)
            found = file.readlines()
            if _line({"library": library}).startswith("".join(found)):
                found = [_line({"library": library})]  # a new one, or its first line was cut short
            header, *records = [_record(line) for line in found]
            if header.get("library") != library:
                raise UsageError(f"{out}: {_difference(header.get('library'), library)}; give another --out")
            done = {record["branch"]: record["subnets"] for record in records if _is_whole(record, out)}
            lines = [_line(header), *(_line({"branch": branch, "subnets": rows}) for branch, rows in done.items())]
            file.seek(0)
            if lines != file.readlines():
                file.seek(0)
                file.truncate()
                file.writelines(lines)
                file.flush()
            _clean(out)
            yield file, done
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where
        raise


def _lock(file: IO[str], out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{out}: another hilnas writes this library; wait for it or give another --out") from None


def _clean(out: Path) -> None:
    """Remove what killed processes were writing."""
    for part in out.glob("*.part"):
        part.unlink()


def _line(record: dict[str, object]) -> str:
    return json.dumps(record) + "\n"


def _record(line: str) -> dict[str, Any]:
    """A line of the index; nothing for one that a power cut damaged."""
    with suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict):
            return record
    return {}


def _is_whole(record: dict[str, Any], out: Path) -> bool:
    with suppress(KeyError, TypeError):
        return isinstance(record["branch"], str) and all(_holds(out / r["file"], r["bytes"]) for r in record["subnets"])
    return False


def _check_files(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`EngineError` where a worker wrote a branch's files, but not here."""
    for row in rows:
        if not _holds(out / row["file"], row["bytes"]):
            raise EngineError(f"{out}: a worker's {row['subnet']} is not here: put --out on storage they share")


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
    """Compile every subnet at these bit widths, a branch a task of `engine`; yields (subnets written, all).

    Goes on where it was stopped, and adds bit widths to a library that has others. Workers on other machines need
    `out`, and the origin's checkpoint, under the same path. Raises `UsageError` if `out` holds another library,
    `EngineError` if a branch's workers were lost time and again or wrote elsewhere.
    """
    found_anywhere = replace(origin, checkpoint=origin.checkpoint and origin.checkpoint.resolve())
    task = partial(write_branch, found_anywhere, form, out.resolve())  # a worker may be in another folder
    total = sum(len(branch.subnets(origin.space)) for branch in branches(origin.space, bits))
    with _opened(out, origin.describe(form)) as (index, done):
        missing = [branch for branch in branches(origin.space, bits) if str(branch) not in done]
        written = total - sum(len(branch.subnets(origin.space)) for branch in missing)
        yield written, total
        try:
            with closing(engine.each(task, missing)) as finished:
                for branch, rows in finished:
                    _check_files(out, rows)
                    index.write(_line({"branch": str(branch), "subnets": rows}))
                    index.flush()
                    written += len(rows)
                    yield written, total
        finally:
            _clean(out)
