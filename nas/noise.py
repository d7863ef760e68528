"""The noise-to-signal power ratio (NSR) of feature maps: a loss in float32, a score in float64.

NSR(Y, Y') = (1/C) sum_c ||Y_c - Y'_c||^2 / sigma_c^2, with the squared norm as a mean over positions and sigma_c^2 the
variance of the reference's channel c. Source: QA-BWNAS (arXiv 2401.12350), section 3, after DNA.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-6  # against dead teacher channels, whose variance is zero


def channel_variance(target: Tensor) -> Tensor:
    """The teacher's variance of each channel (C,) of feature maps (N, C, H, W)."""
    return target.var((0, 2, 3), unbiased=False)


def nsr(target: Tensor, output: Tensor, variance: Tensor) -> Tensor:
    """NSR of `output` against `target`, both (N, C, H, W), given the target's `variance` (C,)."""
    error = (target - output).square().mean((0, 2, 3))
    return (error / (variance + EPSILON)).mean()


@dataclass(frozen=True)
class BlockNoise:
    """What a block's output differs by, over all channels.

    Attributes:
        nsr: the NSR.
        halves: the NSRs of every other image, from the first and from the second: how far the images decide.
            NaN where there is no second image.
        weighted: the NSR with a weight for each channel; without weights the NSR.
    """

    nsr: float
    halves: tuple[float, float]
    weighted: float


class NsrReference:
    """The reference maps (N, C, H, W) that NSRs are computed against (`nsr`, in float64).

    Squared errors are summed image by image, in the images' order, so the number does not depend on how many are
    run at a time. `weights` (C,) are what each channel counts, 1 for all by default.
    """

    def __init__(self, maps: Tensor, weights: Tensor | None = None) -> None:
        self.maps, self.weights = maps, weights
        self.positions = maps.numel() // maps.shape[1]
        mean = self._sum(image.double() for image in maps) / self.positions
        self.variance = self._sum((image - mean[:, None, None]).square() for image in maps) / self.positions

    def nsr(self, output: Iterable[Tensor]) -> float:
        """The NSR of the network's maps, which come in batches (n, C, H, W)."""
        return self.noise(output).nsr

    def noise(self, output: Iterable[Tensor]) -> BlockNoise:
        """As `nsr`, with what else the same squared errors say."""
        images = (image for batch in output for image in batch)
        squares = ((t - y).double().square().flatten(1).sum(1) for t, y in zip(self.maps, images, strict=True))
        sums = torch.stack(list(squares))  # (N, C)
        ratios = self._ratios(sums)
        nsr = float(ratios.mean())
        weighted = nsr if self.weights is None else float((ratios * self.weights.to(ratios)).mean())
        first, second = (float(self._ratios(sums[start::2]).mean()) for start in (0, 1))
        return BlockNoise(nsr, (first, second), weighted)

    def _ratios(self, sums: Tensor) -> Tensor:
        """Each channel's noise-to-signal ratio (C,), from its sums of squared errors over images (n, C)."""
        positions = self.positions // len(self.maps) * len(sums)
        return self._added(sums) / positions / (self.variance + EPSILON)

    def _sum(self, images: Iterable[Tensor]) -> Tensor:
        """Each channel's sum (C,), float64, over maps (C, H, W)."""
        return self._added(image.flatten(1).sum(1) for image in images)

    def _added(self, sums: Iterable[Tensor]) -> Tensor:
        """Channels' sums (C,) added up in the images' order: NumPy's and torch's own sums would round otherwise."""
        total = torch.zeros(self.maps.shape[1], dtype=torch.float64, device=self.maps.device)
        for one in sums:
            total += one
        return total
