"""Block-wise distillation: every block's supernet learns the teacher's feature map from the teacher's input.

Source: QA-BWNAS, section 3 (after DNA). Loss and metric is the noise-to-signal power ratio
NSR(Y, Y') = (1/C) sum_c ||Y_c - Y'_c||^2 / sigma_c^2 with the squared norm taken as a mean over positions.
Each step samples one path, uniformly. The blocks share no weights, so one loop over their losses trains each of
them alone, and so do loops over some of them in processes of their own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from nas.networks.blocks import SuperBlock
from nas.space import Choice, SearchSpace
from nas.training.features import Features
from nas.training.train import Loss

EPSILON = 1e-6  # against dead teacher channels, whose variance is zero


def channel_variance(target: Tensor) -> Tensor:
    """The teacher's variance of each channel (C,) of feature maps (N, C, H, W)."""
    return target.var((0, 2, 3), unbiased=False)


def nsr(target: Tensor, output: Tensor, variance: Tensor) -> Tensor:
    """NSR of `output` against `target`, both (N, C, H, W), given the target's `variance` (C,)."""
    error = (target - output).square().mean((0, 2, 3))
    return (error / (variance + EPSILON)).mean()


def supernets(space: SearchSpace) -> nn.ModuleList:
    return nn.ModuleList(SuperBlock(space, i) for i in range(1, len(space.blocks) + 1))


def paths(space: SearchSpace, step: int, seed: int) -> list[list[Choice]]:
    """One path a block, drawn uniformly: a pure function of (seed, step), whichever blocks are trained."""
    rng = random.Random(f"{seed}/{step}")
    return [[rng.choice(space.choices) for _ in range(block.layers)] for block in space.blocks]


def block_losses(model: nn.ModuleList, features: Features, seed: int) -> Loss:
    """The NSR of one random path of each supernet in `model`, in order, as a function of the step.

    They share the teacher's maps and no weights: each is a part by itself.
    """
    blocks = [supernet for supernet in model if isinstance(supernet, SuperBlock)]

    def losses(step: int) -> Iterator[Tensor]:
        maps = features(step)
        drawn = paths(blocks[0].space, step, seed)
        for supernet in blocks:
            x, target = maps[supernet.block - 1 : supernet.block + 1]
            output = supernet(x, drawn[supernet.block - 1])
            target = target.float()
            yield nsr(target, output.float(), channel_variance(target))

    return losses


def parameter_groups(model: nn.ModuleList, learning_rates: Sequence[float]) -> list[dict[str, object]]:
    """One group a block, each with its own learning rate (the paper gives one a block)."""
    rates = list(learning_rates)
    if len(rates) == 1:
        rates *= len(model)
    return [{"params": list(block.parameters()), "lr": rate} for block, rate in zip(model, rates, strict=True)]
