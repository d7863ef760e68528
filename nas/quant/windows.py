"""Windows that slide over a map: kernels, strides, paddings and where they end. Everything is (rows, columns)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import same_padding

Pair: TypeAlias = "int | tuple[int, int]"
"""One number for rows and columns, or (rows, columns)."""
Padding: TypeAlias = "Literal['same'] | tuple[int, int, int, int]"
"""TFLite's SAME, or (top, bottom, left, right)."""
UNPADDED: Padding = (0, 0, 0, 0)


def pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def pads_of(
    size: tuple[int, int], kernel: Pair, stride: Pair, dilation: Pair, padding: Padding
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) for a map of `size`."""
    if padding != "same":
        return padding
    windows = zip(size, pair(kernel), pair(stride), pair(dilation), strict=True)
    (top, bottom), (left, right) = (same_padding(*window) for window in windows)
    return top, bottom, left, right


def padded(x: Tensor, kernel: Pair, stride: Pair, dilation: Pair, padding: Padding, *, value: float = 0.0) -> Tensor:
    """A map (N, C, H, W) with what a window that is not padded has to read."""
    height, width = x.shape[2:]
    top, bottom, left, right = pads_of((height, width), kernel, stride, dilation, padding)
    return F.pad(x, (left, right, top, bottom), value=value) if top or bottom or left or right else x


def windows_along(
    size: tuple[int, int], kernel: Pair, stride: Pair, dilation: Pair, padding: Padding
) -> tuple[int, int]:
    """How many windows fit: the result's (height, width)."""
    top, bottom, left, right = pads_of(size, kernel, stride, dilation, padding)
    room = (size[0] + top + bottom, size[1] + left + right)
    steps = zip(room, pair(kernel), pair(stride), pair(dilation), strict=True)
    rows, columns = ((side - (k - 1) * d - 1) // s + 1 for side, k, s, d in steps)
    return rows, columns
