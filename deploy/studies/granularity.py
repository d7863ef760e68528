"""What per-tensor weight scales cost against per-channel ones, and what equalization, observers, bias correction win.

The same subnets of a finished run are quantized by every scheme: the NSR of the deployed integers against the teacher,
and their quantization noise, which is the NSR against the subnet in float. Or the final models are, and evaluated on
the validation images. Both as a Markdown table, row by row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from deploy.run.context import Context
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import SearchRecord
from hil.errors import UsageError
from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.segmenter import Encoder
from nas.noise import channel_variance, nsr
from nas.nsr import BlockData, EvaluatedSubnet, evaluate_all
from nas.quant import simulate
from nas.quant.float_graph import INPUT, run
from nas.quant.folding import fold_layers
from nas.quant.ranges import OBSERVERS
from nas.quant.scheme import Granularity, Scheme
from nas.space import Architecture, Subnet
from nas.tasks.task import score_float, score_integer
from nas.training.threads import one_thread

GRANULARITIES: tuple[Granularity, ...] = ("channel", "tensor")
SCHEMES = [
    Scheme("channel", observer, equalize, correct)
    for observer, equalize, correct in itertools.product(OBSERVERS, (False, True), (False, True))
]
"""Each is taken per channel and per tensor."""


def check_run(folder: Path) -> None:
    """`UsageError` for a folder without trained supernets."""
    if not (folder / "supernets.pt").is_file():
        raise UsageError(f"{folder}: no supernets.pt there; give --run a run whose distil stage is done")


@dataclass(frozen=True)
class Noise:
    """Means over subnets: NSR against the teacher, and against the same subnet in float."""

    nsr: float
    noise: float


@dataclass(frozen=True, eq=False)
class BlockSample:
    """Some subnets of one block, and the float output (N, C, H, W) of each for the evaluation images."""

    supernet: SuperBlock
    data: BlockData
    bits: int
    floats: dict[Subnet, Tensor]

    def evaluate(self, scheme: Scheme) -> list[Noise]:
        others = set(self.supernet.space.subnets(self.supernet.block, self.bits)) - self.floats.keys()
        return [
            self._noise(quantized) for quantized in evaluate_all(self.supernet, self.data, self.bits, scheme, others)
        ]

    def _noise(self, quantized: EvaluatedSubnet) -> Noise:
        graph, expected = quantized.graph, self.floats[quantized.subnet]
        q = simulate.run(graph, simulate.quantize(self.data.x_evaluation, graph.tensors[INPUT]))
        output = simulate.dequantize(q, graph.tensors[graph.output])
        return Noise(quantized.nsr, float(nsr(expected, output, channel_variance(expected))))


@torch.no_grad()
def float_output(supernet: SuperBlock, data: BlockData, subnet: Subnet) -> Tensor:
    """The float subnet's output for the evaluation maps, its batch norms set as the traversal sets them."""
    x, y = data.x_calibration, data.x_evaluation
    for layer in supernet.path(subnet):
        recalibrate(layer, x)
        nodes = fold_layers([layer], "layer", INPUT)
        x, y = run(nodes, {INPUT: x}), run(nodes, {INPUT: y})
    return y


def samples(context: Context, count: int, bits: int) -> list[BlockSample]:
    """`count` subnets of each block (all, if fewer), at even distances."""
    with torch.no_grad(), one_thread():
        calibration, evaluation = (context.teacher.boundaries(x) for x in (context.calibration, context.evaluation))
    drawn = []
    for supernet, x, y, target in zip(context.supernets, calibration, evaluation, evaluation[1:], strict=False):
        data = BlockData(x, y, target)
        subnets = list(context.space.subnets(supernet.block, bits))
        step = max(len(subnets) / count, 1.0)
        chosen = [subnets[int((i + 0.5) * step)] for i in range(min(count, len(subnets)))]
        drawn.append(BlockSample(supernet, data, bits, {s: float_output(supernet, data, s) for s in chosen}))
    return drawn


def subnet_rows(drawn: Sequence[BlockSample]) -> Iterator[str]:
    """A Markdown table of NSR and noise by scheme."""
    reference = fmean(
        float(nsr(sample.data.target, y, channel_variance(sample.data.target)))
        for sample in drawn
        for y in sample.floats.values()
    )
    yield (
        "| ranges | equalized | biases corrected "
        "| NSR per channel | NSR per tensor | noise per channel | noise per tensor |"
    )
    yield "|---|---|---|---|---|---|---|"
    yield f"| float | | | {reference:.4f} | {reference:.4f} | 0 | 0 |"
    for scheme in SCHEMES:
        channel, tensor = (_mean(drawn, replace(scheme, granularity=granularity)) for granularity in GRANULARITIES)
        yield (
            f"{_scheme_cells(scheme)} {channel.nsr:.4f} | {tensor.nsr:.4f} | {channel.noise:.5f} | {tensor.noise:.5f} |"
        )


def _scheme_cells(scheme: Scheme) -> str:
    equalized, corrected = ("yes" if flag else "no" for flag in (scheme.equalize, scheme.bias_correction))
    return f"| {scheme.observer} | {equalized} | {corrected} |"


def _mean(drawn: Sequence[BlockSample], scheme: Scheme) -> Noise:
    noises = [noise for sample in drawn for noise in sample.evaluate(scheme)]
    return Noise(fmean(one.nsr for one in noises), fmean(one.noise for one in noises))


def model_rows(context: Context) -> Iterator[str]:
    """A Markdown table of the teacher's and the selected models' integer metric in percent by scheme."""
    models: dict[str, tuple[Encoder, Architecture | None]] = {"teacher": (context.teacher, None)}
    for selected in SearchRecord.read(context.path / SearchRecord.FILE).selected:
        architecture = selected.architecture
        models[selected.name] = (retrained(context, selected.name, architecture), architecture)
    heads = [f"{name} per {granularity}" for name in models for granularity in GRANULARITIES]
    yield f"| ranges | equalized | biases corrected | {' | '.join(heads)} |"
    yield "|---" * (3 + len(heads)) + "|"
    floats = (f"{score_float(model, context.val_data):.2f}" for model, _ in models.values())
    yield f"| float | | | {' | '.join(f'{value} | {value}' for value in floats)} |"
    for scheme in SCHEMES:
        values = [
            _score(context, model, architecture, replace(scheme, granularity=granularity))
            for model, architecture in models.values()
            for granularity in GRANULARITIES
        ]
        yield f"{_scheme_cells(scheme)} {' | '.join(f'{value:.2f}' for value in values)} |"


def _score(context: Context, model: Encoder, architecture: Architecture | None, scheme: Scheme) -> float:
    return score_integer(quantize_network(context, model, architecture, scheme=scheme), context.val_data)
