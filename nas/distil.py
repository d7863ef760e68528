"""Block-wise distillation: every block's supernet learns the teacher's feature map from the teacher's input.

Source: QA-BWNAS, section 3 (after DNA). Loss and metric is the noise-to-signal power ratio
NSR(Y, Y') = (1/C) sum_c ||Y_c - Y'_c||^2 / sigma_c^2 with the squared norm taken as a mean over positions.
Each step samples one path, uniformly. The blocks share no weights, so one loop over the sum of their losses
trains each of them alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nas.blocks import SuperBlock
from nas.data import SegmentationData
from nas.data.augment import Augment
from nas.data.batches import training_batch
from nas.space import SearchSpace
from nas.teacher import Segmenter

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


def block_losses(
    model: nn.ModuleList, teacher: Segmenter, data: SegmentationData, batch_size: int, seed: int
) -> Callable[[int], Tensor]:
    """The sum over blocks of the NSR of one random path, as a function of the step."""
    augment = Augment(data.size)
    teacher.eval()

    def loss(step: int) -> Tensor:
        images, _ = training_batch(data, step, batch_size=batch_size, augment=augment, seed=seed)
        with torch.no_grad():
            maps = teacher.boundaries(images.contiguous(memory_format=torch.channels_last))
        rng = random.Random(f"{seed}/{step}")
        total = torch.zeros(())
        for supernet, x, target in zip(model, maps, maps[1:], strict=False):
            assert isinstance(supernet, SuperBlock)  # noqa: S101 (for the type checker)
            choices = [rng.choice(supernet.space.choices) for _ in supernet.layers]
            total = total + nsr(target, supernet(x, choices), channel_variance(target))
        return total

    return loss


def parameter_groups(model: nn.ModuleList, learning_rates: Sequence[float]) -> list[dict[str, object]]:
    """One group a block, each with its own learning rate (the paper gives one a block)."""
    rates = list(learning_rates)
    if len(rates) == 1:
        rates *= len(model)
    return [{"params": list(block.parameters()), "lr": rate} for block, rate in zip(model, rates, strict=True)]
