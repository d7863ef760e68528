"""The noise-to-signal power ratio (NSR) of feature maps: a loss in float32, a score in float64.

NSR(Y, Y') = (1/C) sum_c ||Y_c - Y'_c||^2 / sigma_c^2, with the squared norm as a mean over positions and sigma_c^2 the
variance of the reference's channel c. Source: QA-BWNAS (arXiv 2401.12350), section 3, after DNA.
"""

from __future__ import annotations

from collections.abc import Iterable

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


class NsrReference:
    """The reference maps (N, C, H, W) that NSRs are computed against (`nsr`, in float64).

    Squared errors are summed image by image, in the images' order, so the number does not depend on how many are
    run at a time.
    """

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps
        self.positions = maps.numel() // maps.shape[1]
        mean = self._sum(image.double() for image in maps) / self.positions
        self.variance = self._sum((image - mean[:, None, None]).square() for image in maps) / self.positions

    def nsr(self, output: Iterable[Tensor]) -> float:
        """The NSR of the network's maps, which come in batches (n, C, H, W)."""
        images = (image for batch in output for image in batch)
        errors = ((t - y).double().square() for t, y in zip(self.maps, images, strict=True))
        return float((self._sum(errors) / self.positions / (self.variance + EPSILON)).mean())

    def _sum(self, images: Iterable[Tensor]) -> Tensor:
        """Each channel's sum (C,), float64, over maps (C, H, W)."""
        total = torch.zeros(self.maps.shape[1], dtype=torch.float64, device=self.maps.device)
        for image in images:
            total += image.flatten(1).sum(1)
        return total
