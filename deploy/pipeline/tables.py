"""The stage that fills the tables that need no board: every subnet quantized, evaluated and compiled."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.compile import subtrees
from deploy.compile.subtrees import IMAGES, Population, SubTree, sub_trees
from deploy.formats.files import write_atomically
from deploy.formats.journal import Journal
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.schemes import SchemeRun, main_scheme_run
from nas.data.batches import images_of
from nas.errors import ConfigError, EngineError
from nas.estimate import Estimate
from nas.space import Subnet
from nas.table import Table, size_table


@dataclass(frozen=True)
class ScoredSubnet:
    """A line of nsr.jsonl: a subnet whose files are written, and its NSR."""

    subnet: str
    nsr: float


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
    journal = Journal(task.folder / "nsr.jsonl", ScoredSubnet)
    values = _finished(journal)
    total = space.count()
    task.prepare(
        context.teacher,
        context.supernets,
        images_of(context.train_data, quantization.calibration_images, batch_size=IMAGES),
        images_of(
            context.train_data,
            quantization.evaluation_images,
            besides=quantization.calibration_images,
            batch_size=IMAGES,
        ),
    )
    ended = context.engine.each(task, sub_trees(space, values))
    with closing(ended):
        for sub_tree, scored in ended:
            _check_files(task.folder, sub_tree)
            journal.append(*(ScoredSubnet(str(subnet), nsr) for subnet, nsr in scored.items()))
            values |= scored
            yield Progress(of.stage("tables"), len(values), total, str(sub_tree))
    shutil.rmtree(task.inputs)
    of.tables.mkdir(parents=True, exist_ok=True)
    size_table(space, of.options.offset_bits).save(of.tables / "size.parquet")
    nsr = Table(
        "nsr",
        "ratio",
        {s: Estimate.exact(values[s]) for s in space.all_subnets()},
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


def _finished(journal: Journal[ScoredSubnet]) -> dict[Subnet, float]:
    """The NSRs that an interrupted stage has; a record that is not of a subnet does not count."""
    values = {}
    for record in journal.read():
        with suppress(ConfigError):
            values[Subnet.parse(record.subnet)] = record.nsr
    return values
