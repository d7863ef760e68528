"""What starting the supernets from the teacher is worth: the NSR of random paths, from both starts, by training steps.

The float NSR against the teacher on images of the training split that no supernet's batch norm was calibrated on, batch
norms recalibrated for every path, as for the tables. A Markdown table, row by row; each start's training is kept in
RUN/start-study/ and goes on where it was stopped.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from deploy.pipeline.distillation import train_blocks
from deploy.run.context import Context
from nas.networks.blocks import SuperBlock, recalibrate
from nas.noise import NsrReference
from nas.space import Choice
from nas.training.train import restore

STARTS: tuple[Literal["random", "teacher"], ...] = ("random", "teacher")


def start_rows(context: Context, paths: int) -> Iterator[str]:
    """The table, over `paths` random paths of each block: without a step, and after the run's steps."""
    blocks = range(1, len(context.space.blocks) + 1)
    with torch.no_grad():
        calibration, evaluation = (
            context.teacher.boundaries(images) for images in (context.calibration, context.evaluation)
        )
    references = [NsrReference(target) for target in evaluation]
    rng = random.Random(f"{context.experiment.seed}/start")
    drawn = {b: [_path(context, b, rng) for _ in range(paths)] for b in blocks}
    yield f"| start | steps | {' | '.join(f'b{b}' for b in blocks)} |"
    yield f"|{'---|' * (len(blocks) + 2)}"
    for start in STARTS:
        for steps, supernets in _trainings(context, start):
            means = [
                fmean(_nsr(supernet, path, calibration[b - 1], evaluation[b - 1], references[b]) for path in drawn[b])
                for b, supernet in zip(blocks, supernets, strict=True)
            ]
            yield f"| {start} | {steps} | {' | '.join(f'{mean:.3f}' for mean in means)} |"


def _path(context: Context, block: int, rng: random.Random) -> list[Choice]:
    return [rng.choice(context.space.choices) for _ in range(context.space.blocks[block - 1].layers)]


def _trainings(context: Context, start: Literal["random", "teacher"]) -> Iterator[tuple[int, list[SuperBlock]]]:
    """The supernets as they start, and after the run's steps."""
    distil = replace(context.experiment.distil, start=start)
    experiment = replace(context.experiment, distil=distil)
    started = Context(experiment, context.space, context.run, context.boards_file)
    yield 0, _blocks(started.started_supernets())
    checkpoint = context.path / "start-study" / f"{start}.pt"
    for _ in train_blocks(started, range(1, len(context.space.blocks) + 1), checkpoint):
        pass
    trained = started.untrained_supernets()
    restore(trained, checkpoint, started.keys["distil"])
    yield distil.schedule.steps, _blocks(trained)


def _blocks(supernets: nn.ModuleList) -> list[SuperBlock]:
    return [block for block in supernets if isinstance(block, SuperBlock)]


@torch.no_grad()
def _nsr(supernet: SuperBlock, path: Sequence[Choice], x: Tensor, images: Tensor, reference: NsrReference) -> float:
    """Of one path: batch norms recalibrated on the maps `x` (N, C, H, W), the NSR of `images`."""
    layers = [copy.deepcopy(supernet.layer(i, choice)) for i, choice in enumerate(path)]
    for layer in layers:
        x = recalibrate(layer, x)
    y = images
    for layer in layers:
        y = layer.eval()(y)
    return reference.nsr([y])
