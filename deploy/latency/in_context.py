"""Blocks measured where they will run: between their neighbours, or in a full network with one block exchanged.

The reference is an architecture of the space, the middle choice of every layer, from the run's supernets and teacher.

    bounded:    entry = T(bounded) - T(boundary)                                  of the same block
    exchanged:  entry = T(reference with the block exchanged) - T(reference) + work(the block of the reference)

work is the isolated latency less the overhead (`deploy.latency.overhead`). An interval's half-width is the root of the
sum of the squares of the medians'. Where a block changes the map's shape, `splice.boundary` holds a convolution in its
place, and all entries of that block are short of its time.

Files are written, measured and removed one batch at a time. Each batch measures its boundary or reference again, in the
same rounds, so that a drift of the board affects both terms of the difference.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from deploy.compile import subtrees
from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.compile.block_forms import FORMS
from deploy.compile.weights import Origin
from deploy.formats.digest import digest
from deploy.latency import overhead
from deploy.latency.estimates import moved, of_summary, weighted_sum
from deploy.latency.overhead import FLOOR_US
from deploy.latency.table import measured_as, summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.models import quantized, quantized_teacher
from deploy.run.weights import of_run
from hil.job import MeasureProtocol
from hil.measurement import Measurement
from nas.estimate import Estimate
from nas.quant import splice
from nas.quant.integer_graph import IntegerGraph
from nas.space import Architecture, SearchSpace, Subnet
from nas.training.threads import one_thread

Form = Literal["bounded", "exchanged"]
BATCH = 48  # models whose files exist at once: 150 MB of Table I's full networks
REFERENCE = "reference"  # the name of the model that a batch's models are compared with


def reference_architecture(space: SearchSpace) -> Architecture:
    """The middle choice of every layer, at the widest weights."""
    middle, bits = space.choices[len(space.choices) // 2], max(space.bits)
    blocks = enumerate(space.blocks, start=1)
    return Architecture(tuple(Subnet(i, (middle,) * block.layers, bits) for i, block in blocks))


def overhead_files(context: Context, teacher: IntegerGraph) -> list[Artifact]:
    """The compiled graphs that give the overhead, in the run's overhead/."""
    folder, image = context.path / "overhead", context.evaluation[:1]
    return list(overhead.compiled(teacher, image, folder, context.keys["tables"], context.tail))


def measure_in_context(
    context: Context, subnets: Iterable[Subnet], form: Form
) -> Generator[Progress, None, dict[Subnet, Estimate]]:
    """The entries of `subnets` in a form of the run's own blocks; what the run's store holds is not measured again.

    A subnet whose bits execute as a wider one's has that one's entry. Raises `ModelError` for a model that fails,
    `QuantizationError` where a block does not fit the reference's scales.
    """
    space, wanted = context.space, list(subnets)
    settings, folder = protocol(context.experiment.profile), context.path / "in-context"
    distinct = sorted({measured_as(space, subnet) for subnet in wanted})
    architecture = reference_architecture(space)
    work = (yield from _reference_work(context, architecture, settings)) if form == "exchanged" else ()
    origin = of_run(context, context.experiment.quantization.scheme)
    with one_thread():
        reference = quantized(context, architecture)
    writing = _Writing(folder, form, reference, context.evaluation[:1], context.keys["tables"])
    entries: dict[Subnet, Estimate] = {}
    for batch in _batches(distinct):
        with one_thread():
            jobs = [artifact.job() for artifact in writing.batch(origin, batch)]
        series = digest(form, *map(str, batch))  # the reference's times belong to this batch's
        done = yield from measure_with_progress(context, jobs, replace(settings, series=series), "profile", f"{form}:")
        shutil.rmtree(folder)
        entries |= _differences(done, batch, form, work)
    return {subnet: entries[measured_as(space, subnet)] for subnet in wanted}


def _differences(
    done: Sequence[Measurement], batch: Sequence[Subnet], form: Form, work: Sequence[Estimate]
) -> dict[Subnet, Estimate]:
    """The entries of a batch of one block; `work`: of the reference's blocks, where one was exchanged."""
    times = {name: of_summary(summary) for name, summary in summaries(done).items()}
    replaced = [(1.0, estimate) for estimate in work[batch[0].block - 1 : batch[0].block]]
    entries = {}
    for subnet in batch:
        time = times[_name(subnet, form)]
        difference = weighted_sum((1.0, time), (-1.0, times[REFERENCE]), *replaced)
        entries[subnet] = replace(moved(difference, max(difference.value, FLOOR_US)), n=time.n)
    return entries


def _name(subnet: Subnet, form: Form) -> str:
    return f"{subnet}.{form}"


@dataclass(frozen=True, eq=False)
class _Writing:
    """Writes a batch's files.

    Attributes:
        folder: for the files.
        form: of the blocks.
        reference: the full network.
        image: (1, 3, H, W) for golden pairs.
        key: for the files' metadata.
    """

    folder: Path
    form: Form
    reference: IntegerGraph
    image: Tensor
    key: str

    def batch(self, origin: Origin, subnets: Sequence[Subnet]) -> Iterator[Artifact]:
        """The files of subnets of one block, after that of the model that they are compared with."""
        block, form = subnets[0].block, FORMS[self.form]
        x = form.input(self.reference, block, self.image)
        without = self.reference if self.form == "exchanged" else splice.boundary(self.reference, block)
        yield self._saved(without, x, REFERENCE)
        for subnet, isolated in origin.graphs(subnets):
            yield self._saved(form.compose(isolated, self.reference), x, _name(subnet, self.form))

    def _saved(self, graph: IntegerGraph, x: Tensor, name: str) -> Artifact:
        return save_model(graph, x, Artifact.at(self.folder, name), model_metadata(graph, name, self.key))


def _reference_work(
    context: Context, architecture: Architecture, settings: MeasureProtocol
) -> Generator[Progress, None, tuple[Estimate, ...]]:
    """Isolated latency less overhead of each of the reference's blocks, from the files of the run's tables."""
    teacher = quantized_teacher(context)
    isolated = [subtrees.artifact(context.path / "subnets", subnet) for subnet in architecture.subnets]
    jobs = [artifact.job() for artifact in (*isolated, *overhead_files(context, teacher))]
    times = summaries((yield from measure_with_progress(context, jobs, settings, "profile", "reference:")))
    found = overhead.solved(times, teacher)
    blocks = zip(architecture.subnets, found.io_us, strict=True)
    return tuple(
        weighted_sum((1.0, of_summary(times[str(subnet)])), (-1.0, found.empty_us), (-1.0, io)) for subnet, io in blocks
    )


def _batches(subnets: Sequence[Subnet]) -> Iterator[list[Subnet]]:
    """Runs of one block and width, at most `BATCH` long."""
    kinds = sorted({(subnet.block, subnet.bits) for subnet in subnets})
    for kind in kinds:
        alike = [subnet for subnet in subnets if (subnet.block, subnet.bits) == kind]
        yield from (alike[i : i + BATCH] for i in range(0, len(alike), BATCH))
