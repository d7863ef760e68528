"""The order of a tensor's axes: torch's maps are (N, C, H, W), the deployed file's (N, H, W, C).

Vectors are (N, C, 1, 1) here and (N, C) in the file; tensors of other ranks are alike, the batch in front. Nodes count
the axes of the file's order from the last one: -1 are a map's or a vector's channels, -2 its columns, -3 its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MAP_DIMENSIONS = {-1: 1, -2: 3, -3: 2}


def dimension(x: Tensor, axis: int) -> int:
    """The dimension of `x` that holds the file's axis."""
    return MAP_DIMENSIONS[axis] if x.ndim == 4 else axis


def to_file_order(x: Tensor) -> Tensor:
    """(N, H, W, C) of a map or, with one row and column, of a vector; other tensors as they are."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def from_file_order(x: Tensor) -> Tensor:
    """(N, C, H, W) of a map in the file's order, (N, C, 1, 1) of a vector; other tensors as they are."""
    if x.ndim == 2:
        return x[:, :, None, None]
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def reshaped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x` with another shape, given without the batch; its elements keep the file's order."""
    return from_file_order(to_file_order(x).reshape(x.shape[0], *shape))


def permuted(x: Tensor, permutation: Sequence[int]) -> Tensor:
    """`x` with its file's axes in another order: for each of the result's, but the batch, the axis of `x`."""
    y = to_file_order(x)
    return from_file_order(y.permute(0, *(axis % y.ndim for axis in permutation)))


def sliced(x: Tensor, begin: Sequence[int], size: Sequence[int], strides: Sequence[int]) -> Tensor:
    """`size` elements, `strides` apart, from `begin` along each of the file's last axes."""
    for axis, (first, count, stride) in enumerate(zip(begin, size, strides, strict=True), start=-len(begin)):
        where = dimension(x, axis)
        if (first, count, stride) != (0, x.shape[where], 1):
            index = torch.arange(first, first + count * stride, stride, device=x.device)
            x = x.index_select(where, index) if abs(stride) > 1 or stride < 0 else x.narrow(where, first, count)
    return x
