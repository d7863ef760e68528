"""Float operators that choose, move or repeat elements, so that they need not rescale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.quant.file_order import dimension, from_file_order, permuted, reshaped, sliced, to_file_order
from nas.quant.windows import UNPADDED, Padding, Pair, Window, pair

ResizeMode = Literal["bilinear", "nearest"]
Coordinates = Literal["half_pixel", "align_corners", "asymmetric"]


@dataclass(frozen=True)
class AveragePool:
    """Mean of `kernel` windows; padding is not counted."""

    name: str
    x: str
    kernel: Pair
    stride: Pair
    padding: Padding = UNPADDED

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, padding=self.padding)

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x, kernel, stride = env[self.x], pair(self.kernel), pair(self.stride)
        if self.padding == UNPADDED:
            return F.avg_pool2d(x, kernel, stride)
        total, counted = (
            F.avg_pool2d(self.window.padded(part), kernel, stride, divisor_override=1)
            for part in (x, torch.ones_like(x[:1, :1]))
        )
        return total / counted


@dataclass(frozen=True)
class MaxPool:
    """The largest of `kernel` windows; padding is never the largest."""

    name: str
    x: str
    kernel: Pair
    stride: Pair
    padding: Padding = "same"

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, padding=self.padding)

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x = self.window.padded(env[self.x], -torch.inf)
        return F.max_pool2d(x, pair(self.kernel), pair(self.stride))


@dataclass(frozen=True)
class Pad:
    """(before, after) rows, columns and channels of zeros."""

    name: str
    x: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    channels: tuple[int, int] = (0, 0)

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return F.pad(env[self.x], (*self.columns, *self.rows, *self.channels))


@dataclass(frozen=True)
class Resize:
    """To (height, width); `coordinates` are TFLite's, by which nearest rounds half pixels down and corners to even."""

    name: str
    x: str
    size: tuple[int, int]
    mode: ResizeMode = "bilinear"
    coordinates: Coordinates = "half_pixel"

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x = env[self.x]
        if self.mode == "bilinear" and self.coordinates != "asymmetric":
            return F.interpolate(x, self.size, mode="bilinear", align_corners=self.coordinates == "align_corners")
        for axis, (size_in, size_out) in enumerate(zip(x.shape[2:], self.size, strict=True), start=2):
            positions = sampled(size_in, size_out, self.mode, self.coordinates)
            low = positions.floor()
            before, after = (x.index_select(axis, i.clamp(max=size_in - 1).long()) for i in (low, low + 1))
            share = (positions - low).to(x.dtype).reshape((-1, *[1] * (3 - axis)))
            x = before + (after - before) * share if self.mode == "bilinear" else before
        return x


def sampled(size_in: int, size_out: int, mode: ResizeMode, coordinates: Coordinates) -> Tensor:
    """Where along an axis each output element reads, (size_out,) in float64: whole numbers for `nearest`."""
    index = torch.arange(size_out, dtype=torch.float64)
    if coordinates == "align_corners" and size_out > 1:
        position = index * (size_in - 1) / (size_out - 1)
        return position if mode == "bilinear" else (position + 0.5).floor()
    position = (index + (0.5 if coordinates == "half_pixel" else 0.0)) * size_in / size_out
    if mode == "nearest":
        return position.floor().clamp(max=size_in - 1)
    return (position - (0.5 if coordinates == "half_pixel" else 0.0)).clamp(0, size_in - 1)


@dataclass(frozen=True)
class Concat:
    name: str
    xs: tuple[str, ...]
    axis: int = -1

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        parts = [env[x] for x in self.xs]
        batch = max(len(part) for part in parts)  # a constant has a batch of 1
        return torch.cat([part.expand(batch, *part.shape[1:]) for part in parts], dimension(parts[0], self.axis))


@dataclass(frozen=True)
class Slice:
    """`size` elements, `strides` apart, from `begin` on along each of the file's axes but the batch."""

    name: str
    x: str
    begin: tuple[int, ...]
    size: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return sliced(env[self.x], self.begin, self.size, self.strides)


@dataclass(frozen=True)
class Reshape:
    """To `shape`, which leaves out the batch; elements keep the file's order. (-1,) flattens to a vector."""

    name: str
    x: str
    shape: tuple[int, ...]

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return reshaped(env[self.x], self.shape)


@dataclass(frozen=True)
class Transpose:
    """`permutation` has, for each of the result's axes but the batch, the axis of `x`: (-1, -3, -2) is (C, H, W)."""

    name: str
    x: str
    permutation: tuple[int, ...]

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return permuted(env[self.x], self.permutation)


@dataclass(frozen=True)
class DepthToSpace:
    """(H, W, b b C) to (H b, W b, C): the channels hold a block's rows, in these its columns, in these C."""

    name: str
    x: str
    block: int

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x, block = to_file_order(env[self.x]), self.block
        batch, height, width, channels = x.shape
        parts = x.reshape(batch, height, width, block, block, channels // block**2).permute(0, 1, 3, 2, 4, 5)
        return from_file_order(parts.reshape(batch, height * block, width * block, -1))


@dataclass(frozen=True)
class SpaceToDepth:
    """(H b, W b, C) to (H, W, b b C), the inverse of `DepthToSpace`."""

    name: str
    x: str
    block: int

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x, block = to_file_order(env[self.x]), self.block
        batch, height, width, channels = x.shape
        parts = x.reshape(batch, height // block, block, width // block, block, channels).permute(0, 1, 3, 2, 4, 5)
        return from_file_order(parts.reshape(batch, height // block, width // block, -1))


Rearranging = AveragePool | MaxPool | Pad | Resize | Concat | Slice | Reshape | Transpose | DepthToSpace | SpaceToDepth
"""Kernels that cannot rescale: their inputs and their result share one scale and zero point."""
