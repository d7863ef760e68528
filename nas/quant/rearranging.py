"""Operators that only move integers: the same on all kernels, in whatever type holds the integers.

Tensors are as the simulations keep them: maps (N, C, H, W), vectors (N, C, 1, 1), those of other ranks in the file's
order with N in front.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.quant.integer_graph import IntTensor
from nas.quant.integer_operators import (
    QConcat,
    QConstant,
    QDepthToSpace,
    QPad,
    QReshape,
    QSlice,
    QSpaceToDepth,
    QTranspose,
    Rearranging,
)

NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def file_order(q: Tensor, tensor: IntTensor) -> Tensor:
    """As in the deployed file, N in front."""
    if tensor.rank == 2:
        return q.flatten(1)
    return q.permute(NHWC) if tensor.rank == 4 else q


def simulated_order(q: Tensor, tensor: IntTensor) -> Tensor:
    """The inverse of `file_order`."""
    if tensor.rank == 2:
        return q[:, :, None, None]
    return q.permute(NCHW) if tensor.rank == 4 else q


def axis_of(axis: int, rank: int) -> int:
    """Where an axis of the file's tensor is in the simulation's."""
    axis %= rank
    return (0, 2, 3, 1)[axis] if rank == 4 else axis


def constant(op: QConstant, tensor: IntTensor) -> Tensor:
    return simulated_order(torch.from_numpy(op.values), tensor)


def rearranged(op: Rearranging, env: Mapping[str, Tensor], tensors: Mapping[str, IntTensor]) -> Tensor:
    """The result of `op` from the integers in `env`."""
    y = tensors[op.name]
    if isinstance(op, QConcat):
        return torch.cat([env[x] for x in op.xs], axis_of(op.axis, y.rank))
    q, x = env[op.x], tensors[op.x]
    match op:
        case QPad():
            value = x.zero_point if op.value is None else op.value
            return F.pad(q, (*op.columns, *op.rows, *op.channels), value=value)
        case QSlice():
            for axis, (begin, size, stride) in enumerate(zip(op.begin, op.size, op.strides, strict=True)):
                if axis:  # the batch is whole
                    at = axis_of(axis, x.rank)
                    q = q.narrow(at, begin, (size - 1) * stride + 1)[(slice(None),) * at + (slice(None, None, stride),)]
            return q
        case QReshape():
            return simulated_order(file_order(q, x).reshape(-1, *y.file_shape[1:]), y)
        case QTranspose():
            return simulated_order(file_order(q, x).permute(op.permutation), y)
        case QDepthToSpace() | QSpaceToDepth():
            return _blocks(op, file_order(q, x)).permute(NCHW)


def _blocks(op: QDepthToSpace | QSpaceToDepth, q: Tensor) -> Tensor:
    """`q` (N, H, W, C) with positions exchanged for channels, the block's rows before its columns."""
    count, height, width, channels = q.shape
    if isinstance(op, QDepthToSpace):
        parts = q.reshape(count, height, width, op.block, op.block, channels // op.block**2)
        return parts.permute(0, 1, 3, 2, 4, 5).reshape(count, height * op.block, width * op.block, -1)
    parts = q.reshape(count, height // op.block, op.block, width // op.block, op.block, channels)
    return parts.permute(0, 1, 3, 2, 4, 5).reshape(count, height // op.block, width // op.block, -1)
