"""What noise at a block boundary does to the task's loss, channel by channel: weights for the NSR.

To second order, and with the empirical Fisher information in place of the Hessian, a disturbance e of a feature map
adds sum_c E[g_c^2] E[e_c^2] / 2 to the loss, g being the loss's gradient at that map (Theis et al., arXiv 1801.05787,
prune by it). E[e_c^2] is the channel's noise-to-signal ratio times its variance, so the channel's weight in the NSR is
E[g_c^2] sigma_c^2. Sums over channels and blocks stay additive.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nas.data.sample import TaskName
from nas.networks.segmenter import Encoder
from nas.tasks.task import TASKS


def channel_weights(model: Encoder, task: TaskName, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """By block, the weight (C,) of each channel of its output, float64; with all of them 1 the NSR is the plain one.

    `batches` are images (N, 3, H, W) with their labels. The mean weight over a block's channels is how much the block's
    noise matters, 1 in the mean over the blocks. Squared gradients are summed over a map's positions, not averaged: the
    noise of a larger map reaches the loss at more of them.
    """
    moments = [_Moments() for _ in model.blocks]
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)

    hooks = [block.register_forward_hook(keep) for block in model.blocks]
    try:
        for images, labels in batches:
            outputs.clear()
            with torch.enable_grad():
                loss = TASKS[task].loss(model(images), labels) * len(images)  # the sum of the images' losses
                gradients = torch.autograd.grad(loss, outputs)
            for moment, y, gradient in zip(moments, outputs, gradients, strict=True):
                moment.add(y.detach().double(), gradient.double())
    finally:
        for hook in hooks:
            hook.remove()
    powers = [moment.power() for moment in moments]
    mean = torch.stack([power.sum() for power in powers]).mean()
    if not mean > 0:  # a loss without a gradient: nothing says that a channel matters more than another
        return [torch.ones_like(power) for power in powers]
    return [power * len(power) / mean for power in powers]


class _Moments:
    """Sums over images and positions of a boundary's maps, their squares and the squares of their gradients, (C,)."""

    def __init__(self) -> None:
        self.images = self.positions = 0
        self.sums: Tensor | None = None  # (3, C)

    def add(self, y: Tensor, gradient: Tensor) -> None:
        sums = torch.stack([part.sum((0, 2, 3)) for part in (y, y.square(), gradient.square())])
        self.sums = sums if self.sums is None else self.sums + sums
        self.images += len(y)
        self.positions += y.numel() // y.shape[1]

    def power(self) -> Tensor:
        """E[g_c^2] sigma_c^2, where g_c^2 is summed over an image's positions."""
        assert self.sums is not None  # noqa: S101 (there was a batch)
        total, squares, gradients = self.sums
        variance = squares / self.positions - (total / self.positions).square()
        power: Tensor = gradients / self.images * variance.clamp(min=0)
        return power
