"""What a weight scale a tensor costs against one a channel, and what equalization, observers and bias correction win.

    python -m deploy.studies.granularity --run runs/demo --config demo-scenes

reads a finished run's networks, quantizes the same subnets by every scheme and prints a Markdown table: the NSR of
the deployed integers against the teacher, and their quantization noise, which is the NSR against the subnet in float.
With `--models` the table is of the final models' mean IoU, or top-1 accuracy, on the validation images instead.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from deploy.cli.exit import ended
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import SearchRecord
from hil.errors import UsageError
from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.segmenter import Encoder
from nas.nsr import BlockData, Judged, walk
from nas.quant import simulate
from nas.quant.float_graph import INPUT, fold_layers, run
from nas.quant.ranges import OBSERVERS
from nas.quant.scheme import Granularity, Scheme
from nas.space import Architecture, Subnet
from nas.tasks.task import score_float, score_integer
from nas.training.distil import channel_variance, nsr
from nas.training.threads import one_thread

GRANULARITIES: tuple[Granularity, ...] = ("channel", "tensor")
SCHEMES = [
    Scheme("channel", observer, equalize, correct)
    for observer, equalize, correct in itertools.product(OBSERVERS, (False, True), (False, True))
]
"""Each is taken per channel and per tensor, side by side."""


@dataclass(frozen=True)
class Cost:
    """Means over subnets: NSR against the teacher, and against the same subnet in float."""

    nsr: float
    noise: float


@dataclass(frozen=True, eq=False)
class Sample:
    """Some subnets of one block, and what each answers in float to the evaluation images (N, C, H, W)."""

    supernet: SuperBlock
    data: BlockData
    bits: int
    floats: dict[Subnet, Tensor]

    def judge(self, scheme: Scheme) -> list[Cost]:
        others = set(self.supernet.space.subnets(self.supernet.block, self.bits)) - self.floats.keys()
        return [self._cost(judged) for judged in walk(self.supernet, self.data, self.bits, scheme, others)]

    def _cost(self, judged: Judged) -> Cost:
        graph, expected = judged.graph, self.floats[judged.subnet]
        q = simulate.run(graph, simulate.quantize(self.data.x_evaluation, graph.tensors[INPUT]))
        output = simulate.dequantize(q, graph.tensors[graph.output])
        return Cost(judged.nsr, float(nsr(expected, output, channel_variance(expected))))


@torch.no_grad()
def float_output(supernet: SuperBlock, data: BlockData, subnet: Subnet) -> Tensor:
    """The float subnet's answer to the evaluation maps, its batch norms set as the walk sets them."""
    x, y = data.x_calibration, data.x_evaluation
    for layer in supernet.path(subnet):
        recalibrate(layer, x)
        nodes = fold_layers([layer], "layer", INPUT)
        x, y = run(nodes, {INPUT: x}), run(nodes, {INPUT: y})
    return y


def samples(context: Context, count: int, bits: int) -> list[Sample]:
    """`count` subnets of each block (all, if fewer), at even distances."""
    with torch.no_grad(), one_thread():
        calibration, evaluation = (context.teacher.boundaries(x) for x in (context.calibration, context.evaluation))
    found = []
    for supernet, x, y, target in zip(context.supernets, calibration, evaluation, evaluation[1:], strict=False):
        data = BlockData(x, y, target)
        subnets = list(context.space.subnets(supernet.block, bits))
        step = max(len(subnets) / count, 1.0)
        chosen = [subnets[int((i + 0.5) * step)] for i in range(min(count, len(subnets)))]
        found.append(Sample(supernet, data, bits, {s: float_output(supernet, data, s) for s in chosen}))
    return found


def subnet_rows(found: Sequence[Sample]) -> Iterator[str]:
    """A Markdown table of NSR and noise by scheme."""
    reference = fmean(
        float(nsr(sample.data.target, y, channel_variance(sample.data.target)))
        for sample in found
        for y in sample.floats.values()
    )
    yield "| ranges | equalized | biases corrected | NSR a channel | NSR a tensor | noise a channel | noise a tensor |"
    yield "|---|---|---|---|---|---|---|"
    yield f"| float | | | {reference:.4f} | {reference:.4f} | 0 | 0 |"
    for scheme in SCHEMES:
        channel, tensor = (_mean(found, replace(scheme, granularity=granularity)) for granularity in GRANULARITIES)
        yield (
            f"{_scheme_cells(scheme)} {channel.nsr:.4f} | {tensor.nsr:.4f} | {channel.noise:.5f} | {tensor.noise:.5f} |"
        )


def _scheme_cells(scheme: Scheme) -> str:
    equalized, corrected = ("yes" if flag else "no" for flag in (scheme.equalize, scheme.bias_correction))
    return f"| {scheme.observer} | {equalized} | {corrected} |"


def _mean(found: Sequence[Sample], scheme: Scheme) -> Cost:
    costs = [cost for sample in found for cost in sample.judge(scheme)]
    return Cost(fmean(cost.nsr for cost in costs), fmean(cost.noise for cost in costs))


def model_rows(context: Context) -> Iterator[str]:
    """A Markdown table of the teacher's and the found models' integer metric in percent by scheme."""
    models: dict[str, tuple[Encoder, Architecture | None]] = {"teacher": (context.teacher, None)}
    for entry in SearchRecord.read(context.path / SearchRecord.FILE).selected:
        models[entry.name] = (retrained(context, entry.name, entry.architecture), entry.architecture)
    heads = [f"{name} a {granularity}" for name in models for granularity in GRANULARITIES]
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.studies.granularity", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--config", type=Path, default="demo-scenes", help="the run's configuration")
    parser.add_argument("--data", help="as the run was given it")
    parser.add_argument("--boards", type=Path)
    parser.add_argument("--subnets", type=int, default=8, help="subnets of each block (default %(default)s)")
    parser.add_argument("--bits", type=int, default=8, help="the weights' width (default %(default)s)")
    parser.add_argument(
        "--models", action="store_true", help="the final models' mean IoU, or top-1 accuracy, instead (minutes)"
    )
    arguments = parser.parse_args(argv)

    def print_rows() -> int:
        if not (arguments.run / "supernets.pt").is_file():
            raise UsageError(f"{arguments.run}: no supernets.pt there; give --run a run whose distil stage is done")
        experiment, space = load_experiment(arguments.config, Overrides(data=arguments.data))
        with Run(arguments.run) as run_folder:
            context = Context(experiment, space, run_folder, arguments.boards)
            rows = (
                model_rows(context)
                if arguments.models
                else subnet_rows(samples(context, arguments.subnets, arguments.bits))
            )
            for row in rows:
                print(row, flush=True)
        return 0

    return ended("granularity", print_rows)


if __name__ == "__main__":
    sys.exit(main())
