"""Blocks measured where they will run: between their neighbours, or in a whole model with one block exchanged.

The reference is an architecture of the space, the middle choice of every layer, from the run's supernets and teacher.

    bounded:    entry = T(bounded) - T(boundary)                                  of the same block
    exchanged:  entry = T(reference with the block exchanged) - T(reference) + work(the reference's own block)

work is the isolated latency less the constants (`deploy.latency.overhead`). An interval's half-width is the root of
the sum of the squares of the medians'. Where a block changes the map's shape, `splice.boundary` holds a convolution in
its place, and all entries of that block are short of its time.

Files are written, measured and removed a batch at a time. Each batch measures its own boundary or reference, in the
same rounds, so that a drift of the board falls on both sides of the difference.
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
from deploy.latency.overhead import Known, weighted
from deploy.latency.table import measured_as, summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.models import quantized, quantized_teacher
from deploy.run.weights import of_run
from hil.job import MeasureProtocol
from nas.quant import splice
from nas.quant.integer_graph import IntegerGraph
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Entry
from nas.training.threads import one_thread

Form = Literal["bounded", "exchanged"]
BATCH = 48  # models whose files are there at once: 150 MB of Table I's whole models
REFERENCE = "reference"  # the name of what a batch's models are compared with


def reference_architecture(space: SearchSpace) -> Architecture:
    """The middle choice of every layer, at the widest weights."""
    middle, bits = space.choices[len(space.choices) // 2], max(space.bits)
    blocks = enumerate(space.blocks, start=1)
    return Architecture(tuple(Subnet(i, (middle,) * block.layers, bits) for i, block in blocks))


def constant_files(context: Context, teacher: IntegerGraph) -> list[Artifact]:
    """The compiled graphs that give the constants, in the run's constants/."""
    folder, image = context.path / "constants", context.evaluation[:1]
    return list(overhead.compiled(teacher, image, folder, context.keys["tables"]))


def measure_in_context(
    context: Context, subnets: Iterable[Subnet], form: Form
) -> Generator[Progress, None, dict[Subnet, Entry]]:
    """The entries of `subnets` in a form of the run's own blocks; what the run's store holds is not measured again.

    A subnet whose bits execute as a wider one's has that one's entry. Raises `ModelError` for a model that fails,
    `QuantizationError` where a block does not fit the reference's scales.
    """
    space, wanted = context.space, list(subnets)
    settings, folder = protocol(context.experiment.profile), context.path / "in-context"
    distinct = sorted({measured_as(space, subnet) for subnet in wanted})
    architecture = reference_architecture(space)
    own = (yield from _own_work(context, architecture, settings)) if form == "exchanged" else ()
    origin = of_run(context, context.experiment.quantization.scheme)
    with one_thread():
        reference = quantized(context, architecture)
    writing = _Writing(folder, form, reference, context.evaluation[:1], context.keys["tables"])
    entries: dict[Subnet, Entry] = {}
    for batch in _batches(distinct):
        with one_thread():
            jobs = [artifact.job() for artifact in writing.batch(origin, batch)]
        series = digest(form, *map(str, batch))  # the reference's times belong to this batch's
        done = yield from measure_with_progress(context, jobs, replace(settings, series=series), "profile", f"{form}:")
        shutil.rmtree(folder)
        times = {name: Known.of(summary) for name, summary in summaries(done).items()}
        less = [(-1.0, times[REFERENCE]), *((1.0, known) for known in own[batch[0].block - 1 : batch[0].block])]
        for subnet in batch:
            known = weighted((1.0, times[_name(subnet, form)]), *less)
            count = sum(len(m.latencies_us) for m in done if m.model == _name(subnet, form))
            entries[subnet] = overhead.entry(known.us, known.half_us, known.half_us, count, "in_context")
    return {subnet: entries[measured_as(space, subnet)] for subnet in wanted}


def _name(subnet: Subnet, form: Form) -> str:
    return f"{subnet}.{form}"


@dataclass(frozen=True, eq=False)
class _Writing:
    """What a batch's files are made from: they go into `folder`, answer to `image` (1, 3, H, W) and name `key`."""

    folder: Path
    form: Form
    reference: IntegerGraph
    image: Tensor
    key: str

    def batch(self, origin: Origin, subnets: Sequence[Subnet]) -> Iterator[Artifact]:
        """The files of subnets of one block, after those of what they are compared with."""
        block, form = subnets[0].block, FORMS[self.form]
        x = form.input(self.reference, block, self.image)
        without = self.reference if self.form == "exchanged" else splice.boundary(self.reference, block)
        yield self._saved(without, x, REFERENCE)
        for subnet, alone in origin.graphs(subnets):
            yield self._saved(form.compose(alone, self.reference), x, _name(subnet, self.form))

    def _saved(self, graph: IntegerGraph, x: Tensor, name: str) -> Artifact:
        return save_model(graph, x, Artifact.at(self.folder, name), model_metadata(graph, name, self.key))


def _own_work(
    context: Context, architecture: Architecture, settings: MeasureProtocol
) -> Generator[Progress, None, tuple[Known, ...]]:
    """What each of the reference's own blocks takes alone, less the constants, from the files of the run's tables."""
    teacher = quantized_teacher(context)
    alone = [subtrees.artifact(context.path / "subnets", subnet) for subnet in architecture.subnets]
    jobs = [artifact.job() for artifact in (*alone, *constant_files(context, teacher))]
    times = summaries((yield from measure_with_progress(context, jobs, settings, "profile", "reference:")))
    found = overhead.solved(times, teacher)
    own = zip(architecture.subnets, found.edges_us, strict=True)
    return tuple(
        weighted((1.0, Known.of(times[str(subnet)])), (-1.0, found.empty_us), (-1.0, edge)) for subnet, edge in own
    )


def _batches(subnets: Sequence[Subnet]) -> Iterator[list[Subnet]]:
    """Runs of one block and width, at most `BATCH` long."""
    kinds = sorted({(subnet.block, subnet.bits) for subnet in subnets})
    for kind in kinds:
        alike = [subnet for subnet in subnets if (subnet.block, subnet.bits) == kind]
        yield from (alike[i : i + BATCH] for i in range(0, len(alike), BATCH))
