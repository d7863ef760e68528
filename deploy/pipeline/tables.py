"""The stage that fills the tables that need no board: every subnet quantized, evaluated and compiled."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from deploy.compile import subtrees
from deploy.compile.subtrees import IMAGES, Population, SubTree, sub_trees
from deploy.formats.files import write_atomically
from deploy.formats.journal import Journal
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.schemes import SchemeRun, main_scheme_run
from deploy.search.estimates import (
    BLOCK_WEIGHTS,
    SPLIT_HALF,
    WEIGHTED_NSR,
    split_half_tau_b,
    split_half_text,
    unreliable,
)
from nas.data.batches import images_of, samples_of
from nas.errors import ConfigError, EngineError
from nas.estimate import Estimate
from nas.noise import BlockNoise
from nas.space import Subnet
from nas.table import Table, size_table
from nas.tasks.sensitivity import channel_weights
from nas.training.threads import one_thread

logger = logging.getLogger(__name__)
LABELLED = 4  # images that a backward pass takes at a time


@dataclass(frozen=True)
class ScoredSubnet:
    """A line of nsr.jsonl: a subnet whose files are written, and its noise."""

    subnet: str
    nsr: float
    halves: tuple[float, float]
    weighted: float


def populate(context: Context) -> Iterator[Progress]:
    """NSR, weighted NSR and size of every subnet, and its .tflite; tables/*.parquet."""
    yield from populate_scheme(context, main_scheme_run(context))


def populate_scheme(context: Context, of: SchemeRun) -> Iterator[Progress]:
    """A scheme's tables of NSR and size, and every subnet's files, sub-tree by sub-tree on the run's engine.

    A sub-tree that ended is in nsr.jsonl and not computed again, however this is stopped.
    """
    task = Population(
        context.space, of.options, of.subnets, of.keys["tables"], form=of.scheme.form, arithmetic=of.arithmetic
    )
    space, key, quantization = context.space, task.key, context.experiment.quantization
    _start_afresh_unless(task.folder, key)
    journal = Journal(task.folder / "nsr.jsonl", ScoredSubnet)
    values = _finished(journal)
    total, weights = space.count(), _channel_weights(context)
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
        weights,
    )
    ended = context.engine.each(task, sub_trees(space, values))
    with closing(ended):
        for sub_tree, scored in ended:
            _check_files(task.folder, sub_tree)
            journal.append(*(ScoredSubnet(str(subnet), **vars(noise)) for subnet, noise in scored.items()))
            values |= scored
            yield Progress(of.stage("tables"), len(values), total, str(sub_tree))
    shutil.rmtree(task.inputs)
    of.tables.mkdir(parents=True, exist_ok=True)
    size_table(space, of.options.offset_bits).save(of.tables / "size.parquet")
    provenance = {
        "space": space.digest,
        "key": key,
        "checkpoint": context.supernets_digest,
        **asdict(task.scheme),
        **of.provenance,
    }
    subnets = list(space.all_subnets())
    weighted = {s: Estimate.exact(values[s].weighted) for s in subnets}
    block_weights = {BLOCK_WEIGHTS: [float(channels.mean()) for channels in weights]}
    Table(WEIGHTED_NSR, "ratio", weighted, provenance | block_weights).save(of.tables / f"{WEIGHTED_NSR}.parquet")
    blocks = range(1, len(space.blocks) + 1)
    split_half = [split_half_tau_b([values[s].halves for s in space.subnets(block)]) for block in blocks]
    plain = {s: Estimate.exact(values[s].nsr) for s in subnets}
    nsr = Table("nsr", "ratio", plain, provenance | {SPLIT_HALF: split_half})
    nsr.check(space)
    nsr.save(of.tables / "nsr.parquet")
    if advice := unreliable(nsr, space, quantization.evaluation_images):
        logger.warning("%s", advice)
    yield Progress(of.stage("tables"), total, total, split_half_text(nsr))


def _channel_weights(context: Context) -> list[Tensor]:
    """By block what a channel's noise matters to the teacher's loss, on the evaluation images."""
    settings = context.experiment.quantization
    samples = samples_of(
        context.train_data, settings.evaluation_images, besides=settings.calibration_images, batch_size=LABELLED
    )
    with one_thread():
        return channel_weights(context.teacher, context.task.name, samples)


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


def _finished(journal: Journal[ScoredSubnet]) -> dict[Subnet, BlockNoise]:
    """The noises that an interrupted stage has; a record that is not of a subnet does not count."""
    values = {}
    for record in journal.read():
        with suppress(ConfigError):
            values[Subnet.parse(record.subnet)] = BlockNoise(record.nsr, record.halves, record.weighted)
    return values
