"""Operators that only move integers: the same on all kernels, in whatever type holds the integers.

Tensors are as in the float graph (`file_order`): maps (N, C, H, W), vectors (N, C, 1, 1), others in the file's order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.quant.file_order import dimension, from_file_order, permuted, reshaped, sliced, to_file_order
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


def constant(op: QConstant, y: IntTensor) -> Tensor:
    """(1, C, H, W), or in the file's order where it is no map."""
    return from_file_order(torch.from_numpy(op.values).reshape(1, *y.shape))


def rearranged(op: Rearranging, env: Mapping[str, Tensor], tensors: Mapping[str, IntTensor]) -> Tensor:
    """The result of `op` from the integers in `env`."""
    if isinstance(op, QConcat):
        parts = [env[x] for x in op.xs]
        count = max(len(part) for part in parts)  # a constant is one
        return torch.cat([part.expand(count, *part.shape[1:]) for part in parts], dimension(parts[0], op.axis))
    q = env[op.x]
    match op:
        case QPad():
            value = tensors[op.x].zero_point if op.value is None else op.value
            return F.pad(q, (*op.columns, *op.rows, *op.channels), value=value)
        case QSlice():
            return sliced(q, op.begin, op.size, op.strides)
        case QReshape():
            return reshaped(q, tensors[op.name].shape)
        case QTranspose():
            return permuted(q, op.permutation)
        case QDepthToSpace() | QSpaceToDepth():
            return from_file_order(_blocks(op, to_file_order(q)))


def _blocks(op: QDepthToSpace | QSpaceToDepth, q: Tensor) -> Tensor:
    """`q` (N, H, W, C) with positions exchanged for channels, which hold a block's rows, in these its columns."""
    count, height, width, channels = q.shape
    if isinstance(op, QDepthToSpace):
        parts = q.reshape(count, height, width, op.block, op.block, channels // op.block**2)
        return parts.permute(0, 1, 3, 2, 4, 5).reshape(count, height * op.block, width * op.block, -1)
    parts = q.reshape(count, height // op.block, op.block, width // op.block, op.block, channels)
    return parts.permute(0, 1, 3, 2, 4, 5).reshape(count, height // op.block, width // op.block, -1)
