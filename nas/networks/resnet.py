"""ResNet18, LCPAQ's and HAWQ-V3's reference network: a fixed one, outside the search spaces.

Source: He et al., arXiv 1512.03385, table 1 and section 4.2 (small images); shortcuts where the shape changes are 1x1
convolutions (its option B). Padding is TFLite's SAME, as everywhere here.
"""

from __future__ import annotations

import re
from itertools import pairwise

from torch import Tensor, nn

from nas.errors import ConfigError
from nas.networks.blocks import ACTIVATIONS, ConvBN, max_pool_same

WIDTH = 64  # channels of the first of four stages; each later one has twice as many
STAGES, BLOCKS_PER_STAGE = 4, 2
SMALL_IMAGE = 64  # pixels of the shorter side, below which the stem keeps the image's size
NAME = re.compile(r"resnet18(?:w(\d{1,4}))?")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, I, H, W) to (N, C, H/s, W/s)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(channels_in, channels, 3, stride=stride, activation="relu")
        self.conv2 = ConvBN(channels, channels, 3, activation="none")
        changes = stride > 1 or channels_in != channels
        self.downsample = ConvBN(channels_in, channels, stride=stride, activation="none") if changes else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return ACTIVATIONS["relu"](self.conv2(self.conv1(x)) + shortcut)


class ResNet(nn.Module):
    """ResNet18: images (N, 3, H, W) to logits (N, classes).

    Its form follows the `size` (H, W) that it is made for: below 64 pixels in either direction a 3x3 stem of stride 1,
    else a 7x7 stem of stride 2 and 3x3 max pooling of stride 2. Raises `ConfigError` for no classes or no channels.
    """

    def __init__(self, classes: int, size: tuple[int, int], width: int = WIDTH) -> None:
        super().__init__()
        if min(classes, width) < 1:
            raise ConfigError(f"resnet18: {classes} classes and {width} channels: give at least 1 of each")
        self.width = width
        self.pooled = min(size) >= SMALL_IMAGE
        kernel, stride = (7, 2) if self.pooled else (3, 1)
        self.output_stride = 32 if self.pooled else 8
        self.stem = ConvBN(3, width, kernel, stride=stride, activation="relu")
        widths = [width * 2**i for i in range(STAGES)]
        self.stages = nn.ModuleList(_stage(*channels) for channels in pairwise([width, *widths]))
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = max_pool_same(y, 3, 2) if self.pooled else y
        for stage in self.stages:
            y = stage(y)
        logits: Tensor = self.classifier(y.mean((2, 3)))
        return logits


def _stage(channels_in: int, channels: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, 1 if channels_in == channels else 2)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(BLOCKS_PER_STAGE - 1)))


def width_of(name: str) -> int | None:
    """The width that `resnet18` (64) or `resnet18w16` (16) names; None for any other name."""
    match = NAME.fullmatch(name)
    return int(match[1] or WIDTH) if match else None
