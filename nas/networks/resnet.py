"""ResNet18 and ResNet50, LCPAQ's and HAWQ-V3's reference networks: fixed ones, outside the search spaces.

Source: He et al., arXiv 1512.03385, table 1 and section 4.2 (small images); shortcuts where the shape changes are 1x1
convolutions (its option B), and a block's stride is its first convolution's. Padding is TFLite's SAME, as everywhere
here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from torch import Tensor, nn

from nas.errors import ConfigError
from nas.networks.blocks import ACTIVATIONS, ConvBN, max_pool_same

WIDTH = 64  # channels of the first of four stages; each later one has twice as many
Depth: TypeAlias = Literal[18, 50]
BLOCKS: Mapping[Depth, tuple[int, ...]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""By depth the blocks of each stage."""
SMALL_IMAGE = 64  # pixels of the shorter side, below which the stem keeps the image's size
NAME = re.compile(r"resnet(18|50)(?:w(\d{1,4}))?")


@dataclass(frozen=True)
class ResNetForm:
    """`resnet18`, `resnet50`, or with another width for 64: `resnet18w16`."""

    depth: Depth = 18
    width: int = WIDTH

    def __str__(self) -> str:
        return f"resnet{self.depth}" + (f"w{self.width}" if self.width != WIDTH else "")

    @classmethod
    def parse(cls, name: str) -> ResNetForm | None:
        """None for any other name."""
        match = NAME.fullmatch(name)
        if match is None:
            return None
        depth = next(depth for depth in get_args(Depth) if str(depth) == match[1])
        return cls(depth, int(match[2] or WIDTH))


class ResidualBlock(nn.Module):
    """Convolutions and a shortcut: (N, I, H, W) to (N, C, H/s, W/s)."""

    def __init__(self, convolutions: list[ConvBN], channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        changes = stride > 1 or channels_in != channels
        self.downsample = ConvBN(channels_in, channels, stride=stride, activation="none") if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y, shortcut = x, x if self.downsample is None else self.downsample(x)
        for convolution in self.convolutions:
            y = convolution(y)
        return ACTIVATIONS["relu"](y + shortcut)


def basic_block(channels_in: int, width: int, stride: int) -> ResidualBlock:
    """Two 3x3 convolutions, to `width` channels."""
    first = ConvBN(channels_in, width, 3, stride=stride, activation="relu")
    return ResidualBlock([first, ConvBN(width, width, 3, activation="none")], channels_in, width, stride)


def bottleneck(channels_in: int, width: int, stride: int) -> ResidualBlock:
    """1x1, 3x3 and 1x1 convolutions, to four times `width` channels."""
    convolutions = [
        ConvBN(channels_in, width, stride=stride, activation="relu"),
        ConvBN(width, width, 3, activation="relu"),
        ConvBN(width, 4 * width, activation="none"),
    ]
    return ResidualBlock(convolutions, channels_in, 4 * width, stride)


class ResNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes).

    Its form follows the `size` (H, W) that it is made for: below 64 pixels in either direction a 3x3 stem of stride 1,
    else a 7x7 stem of stride 2 and 3x3 max pooling of stride 2. Raises `ConfigError` for no classes or no channels.
    """

    def __init__(self, classes: int, size: tuple[int, int], form: ResNetForm | None = None) -> None:
        super().__init__()
        self.form = form = form or ResNetForm()
        if min(classes, form.width) < 1:
            raise ConfigError(
                f"resnet{form.depth}: {classes} classes and {form.width} channels: give at least 1 of each"
            )
        self.pooled = min(size) >= SMALL_IMAGE
        kernel, stride = (7, 2) if self.pooled else (3, 1)
        self.output_stride = 32 if self.pooled else 8
        self.stem = ConvBN(3, form.width, kernel, stride=stride, activation="relu")
        blocks, block, expansion = BLOCKS[form.depth], *((basic_block, 1) if form.depth == 18 else (bottleneck, 4))
        widths = [form.width * 2**i for i in range(len(blocks))]
        stages = []
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            channels_in = [form.width if i == 0 else expansion * widths[i - 1], *[expansion * width] * (count - 1)]
            strides = [1 if i == 0 else 2, *[1] * (count - 1)]
            stages.append(nn.Sequential(*(block(c, width, s) for c, s in zip(channels_in, strides, strict=True))))
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Linear(expansion * widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = max_pool_same(y, 3, 2) if self.pooled else y
        for stage in self.stages:
            y = stage(y)
        logits: Tensor = self.classifier(y.mean((2, 3)))
        return logits
