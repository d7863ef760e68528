"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR on integers, as XNNPACK and as the reference kernels compute them.

Nearest is one rule on both. `coordinates` decides where an output position lies in the input.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nas.quant.fixed_point import Int64, truncated
from nas.quant.integer_graph import QResize
from nas.quant.rearranging import Coordinates


def _ratio(coordinates: Coordinates, size_in: int, size_out: int) -> np.float32:
    """Input positions for each output position."""
    if coordinates == "align_corners" and size_out > 1:
        return np.float32(size_in - 1) / np.float32(size_out - 1)
    return np.float32(size_in) / np.float32(size_out)


def nearest_index(coordinates: Coordinates, size_in: int, size_out: int) -> Int64:
    """Where each output position reads along one axis: rounded down; align_corners rounds, ties up."""
    offset = np.float32(0.5 if coordinates == "half_pixel" else 0)
    position = (np.arange(size_out, dtype=np.float32) + offset) * _ratio(coordinates, size_in, size_out)
    position = np.floor(position + np.float32(0.5) if coordinates == "align_corners" else position)
    index: Int64 = position.astype(np.int64).clip(0, size_in - 1)
    return index


def nearest(q: Tensor, size: tuple[int, int], coordinates: Coordinates) -> Tensor:
    for axis in (0, 1):
        index = torch.from_numpy(nearest_index(coordinates, q.shape[2 + axis], size[axis])).to(q.device)
        q = q.index_select(2 + axis, index)
    return q


def _axis(coordinates: Coordinates, size_in: int, size_out: int, device: torch.device) -> Iterator[Tensor]:
    """Lower index, upper index and 11-bit weight of the upper one, along one axis."""
    ratio, position = _ratio(coordinates, size_in, size_out), np.arange(size_out, dtype=np.float32)
    if coordinates == "half_pixel":
        position = (position + np.float32(0.5)) * ratio - np.float32(0.5)
    else:
        position = position * ratio
    position = position.clip(0, size_in - 1).astype(np.float32)
    low = position.astype(np.int64)
    weight = np.rint((position - low.astype(np.float32)) * np.float32(2048)).astype(np.float64)
    high = np.minimum(low + 1, size_in - 1)
    return (torch.from_numpy(part).to(device) for part in (low, high, weight))


def bilinear(q: Tensor, size: tuple[int, int], coordinates: Coordinates = "half_pixel") -> Tensor:
    """XNNPACK's fixed-point bilinear: 11 bits per axis, rounded once."""
    q = q.double()
    top, bottom, weight = _axis(coordinates, q.shape[2], size[0], q.device)
    rows = q[:, :, top] * 2048 + (q[:, :, bottom] - q[:, :, top]) * weight[:, None]
    left, right, weight = _axis(coordinates, q.shape[3], size[1], q.device)
    total = rows[..., left] * 2048 + (rows[..., right] - rows[..., left]) * weight
    return ((total + 2**21) * 2.0**-22).floor_().float()


def resized(op: QResize, q: Tensor, size: tuple[int, int]) -> Tensor:
    """Of float32 integers (N, C, H, W), as XNNPACK."""
    return (nearest if op.mode == "nearest" else bilinear)(q, size, op.coordinates)


def _reference_axis(op: QResize, size_in: int, size_out: int) -> tuple[Int64, Int64, Int64]:
    """Lower index, upper index and 10-bit weight of the upper one, along one axis."""
    over, under = size_in, size_out
    if op.coordinates == "align_corners" and size_out > 1:
        over, under = size_in - 1, size_out - 1
    scale = ((over << 10) + under // 2) // under
    position = np.arange(size_out, dtype=np.int64) * scale
    if op.coordinates == "half_pixel":
        position += scale // 2 - (1 << 9)
    low = np.maximum(truncated(position, 10), 0)
    high = np.minimum((position + (1 << 10) - 1) >> 10, size_in - 1)
    return low, np.maximum(high, 0), position - (low << 10)


def reference(op: QResize, q: Int64, size: tuple[int, int]) -> Int64:
    """As the reference kernels: 10 bits per axis."""
    if op.mode == "nearest":
        return nearest(torch.from_numpy(q), size, op.coordinates).numpy()
    top, bottom, v = _reference_axis(op, q.shape[2], size[0])
    left, right, h = _reference_axis(op, q.shape[3], size[1])
    v = v[:, None]
    rows: Int64 = q[:, :, top] * ((1 << 10) - v) + q[:, :, bottom] * v
    total: Int64 = rows[..., left] * ((1 << 10) - h) + rows[..., right] * h
    half: Int64 = np.where(total > 0, np.int64(1 << 19), np.int64(-(1 << 19)))
    return truncated(total + half, 20)
