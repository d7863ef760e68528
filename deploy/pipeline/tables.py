"""The stage that fills the tables that need no board: every subnet quantized, evaluated and compiled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

from deploy.compile import subtrees
from deploy.compile.subtrees import IMAGES, Population, SubTree, sub_trees
from deploy.formats.files import write_atomically
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.schemes import SchemeRun, main_scheme_run
from nas.data.batches import images_of
from nas.errors import ConfigError, EngineError
from nas.space import Subnet
from nas.table import Entry, Table, size_table


def populate(context: Context) -> Iterator[Progress]:
    """NSR and size of every subnet, and its .tflite; tables/*.parquet."""
    yield from populate_scheme(context, main_scheme_run(context))


def populate_scheme(context: Context, of: SchemeRun) -> Iterator[Progress]:
    """A scheme's NSR and size table, and every subnet's files, sub-tree by sub-tree on the run's engine.

    A sub-tree that ended is in nsr.jsonl and not computed again, however this is stopped.
    """
    task = Population(context.space, of.options, of.subnets, of.keys["tables"], form=of.scheme.form)
    space, key, quantization = context.space, task.key, context.experiment.quantization
    _start_afresh_unless(task.folder, key)
    journal = task.folder / "nsr.jsonl"
    values = _finished(journal)
    total = space.count()
    task.prepare(
        context.teacher,
        context.supernets,
        images_of(context.train_data, quantization.calibration_images, batch_size=IMAGES),
        images_of(context.train_data, quantization.evaluation_images, shift=0.5, batch_size=IMAGES),
    )
    ended = context.engine.each(task, sub_trees(space, values))
    with journal.open("a", encoding="utf8") as lines, closing(ended):
        for sub_tree, found in ended:
            _check_files(task.folder, sub_tree)
            lines.writelines(json.dumps({"subnet": str(s), "nsr": nsr}) + "\n" for s, nsr in found.items())
            lines.flush()
            values |= found
            yield Progress(of.stage("tables"), len(values), total, str(sub_tree))
    shutil.rmtree(task.inputs)
    of.tables.mkdir(parents=True, exist_ok=True)
    size_table(space).save(of.tables / "size.parquet")
    nsr = Table(
        "nsr",
        "ratio",
        {s: Entry.exact(values[s]) for s in space.all_subnets()},
        {
            "space": space.digest,
            "key": key,
            "checkpoint": context.supernets_digest,
            **asdict(task.scheme),
            **of.provenance,
        },
    )
    nsr.check(space)
    nsr.save(of.tables / "nsr.parquet")


def _check_files(folder: Path, sub_tree: SubTree) -> None:
    """`EngineError` where a worker wrote a sub-tree's files, but not here."""
    for subnet in sub_tree.subnets:
        if not subtrees.artifact(folder, subnet).exists:
            raise EngineError(f"{folder}: a worker's {subnet}.tflite is not here: put --runs-dir on storage they share")


def _start_afresh_unless(folder: Path, key: str) -> None:
    marker = folder / "KEY"
    if not marker.exists() or marker.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        write_atomically(marker, key)


def _finished(journal: Path) -> dict[Subnet, float]:
    """What an interrupted walk had finished; a line that was cut short or damaged does not count."""
    values = {}
    content = journal.read_bytes() if journal.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    for line in whole.splitlines():
        with suppress(ValueError, KeyError, TypeError, ConfigError):
            entry = json.loads(line)
            values[Subnet.parse(entry["subnet"])] = float(entry["nsr"])
    if whole != content:
        write_atomically(journal, whole)
    return values
