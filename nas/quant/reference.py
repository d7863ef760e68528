"""Run an `IntegerGraph` bit for bit as TFLite's reference kernels do (OpResolverType.BUILTIN_REF).

They requantize with a 31-bit multiplier and a shift, rounding twice (gemmlowp's arithmetic), where XNNPACK rounds
once in float32; so the two kernel sets differ in the last place, and a board with these kernels is compared with them.
Slow and obvious: int64 throughout.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nas.networks.blocks import conv_same, same_padding
from nas.quant.fixed_point import (
    Int64,
    doubling_high_multiply,
    exponential,
    multiplier_of,
    reciprocal,
    rescale,
    rescale_once,
    rounding_shift,
    truncated,
)
from nas.quant.integer_graph import (
    Activation,
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConcat,
    QConv,
    QFullyConnected,
    QMaxPool,
    QMean,
    QNearest,
    QPad,
    QReshape,
    QResize,
    QSoftmax,
    Weighted,
)
from nas.quant.simulate import nearest, oihw


def _clamp(values: Int64, y: IntTensor, activation: Activation = "none") -> Int64:
    low, high = -128, 127
    if activation != "none":
        low = max(low, y.zero_point)
    if activation == "relu6":
        six = float(np.float32(6) / np.float32(y.scale))
        high = min(high, y.zero_point + math.floor(six + 0.5))  # XNNPACK rounds with the zero point, ties to even
    return np.clip(values, low, high)


def conv(op: QConv, q: Int64, tensors: dict[str, IntTensor], unsigned: bool = False) -> Int64:
    """A convolution of the integers `q` (N, C, H, W); `unsigned` where the file's are uint8."""
    x, y = tensors[op.x], tensors[op.name]
    kernel = torch.from_numpy(np.ascontiguousarray(oihw(op))).double()
    bias = torch.from_numpy(op.bias).double()
    total = conv_same(torch.from_numpy(q - x.zero_point).double(), kernel, bias, op.stride, op.dilation)
    return _requantized(total.numpy().astype(np.int64), op, x, y, unsigned)


def _requantized(total: Int64, op: Weighted, x: IntTensor, y: IntTensor, unsigned: bool = False) -> Int64:
    """Accumulators (N, O, H, W) to the output's integers, clamped to the activation."""
    product = np.float32(x.scale) * op.weight_scale  # uint8's multiplier is a float32; int8's has double precision
    if not unsigned:
        product = np.float64(np.float32(x.scale)) * op.weight_scale.astype(np.float64)
    scales = product.astype(np.float64) / np.float64(np.float32(y.scale))
    multipliers = np.array([multiplier_of(float(scale)) for scale in scales], np.int64)  # (O or 1, 2)
    q31, exponent = (multipliers[:, i].reshape(1, -1, 1, 1) for i in (0, 1))
    scaled = rescale_once if isinstance(op, QFullyConnected) else rescale
    return _clamp(scaled(total, q31, exponent) + y.zero_point, y, op.activation)


def _fully_connected(op: QFullyConnected, q: Int64, x: IntTensor, y: IntTensor) -> Int64:
    total = (q - x.zero_point)[:, :, 0, 0] @ op.weight.T.astype(np.int64) + op.bias
    return _requantized(total[:, :, None, None], op, x, y)


def _mean(q: Int64, x: IntTensor, y: IntTensor) -> Int64:
    """The division by the number of positions is part of the multiplier, truncated."""
    positions = q.shape[2] * q.shape[3]
    total = (q - x.zero_point).sum((2, 3), keepdims=True)
    q31, exponent = multiplier_of(float(np.float32(x.scale)) / float(np.float32(y.scale)))
    shift = min(positions.bit_length() - 1, 31 + exponent)
    return _clamp(rescale(total, (q31 << shift) // positions, exponent - shift) + y.zero_point, y)


def _average_pool(q: Int64, kernel: int, stride: int) -> Int64:
    """The mean of the integers, ties away from zero."""
    windows = np.lib.stride_tricks.sliding_window_view(q, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    total, positions = windows.sum((4, 5)), kernel * kernel
    mean: Int64 = np.sign(total) * ((np.abs(total) + positions // 2) // positions)
    return mean


def _max_pool(q: Int64, kernel: int, stride: int) -> Int64:
    """The largest integer of each window; int8's smallest pads, which changes no maximum."""
    padding = [(0, 0), (0, 0), *(same_padding(size, kernel, stride, 1) for size in q.shape[2:])]
    padded = np.pad(q, padding, constant_values=-128)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    largest: Int64 = windows.max((4, 5))
    return largest


def _softmax(q: Int64, x: IntTensor) -> Int64:
    """Fixed-point exponentials of 5 integer bits, their sum of 12; differences beyond those 5 bits count as zero."""
    q31, exponent = multiplier_of(min(float(np.float32(x.scale)) * 2**26, 2.0**31 - 1))
    below = q - q.max(1, keepdims=True)
    near = below >= -math.floor(31 * 2.0 ** (26 - exponent))
    powers = exponential(rescale(np.where(near, below, 0), q31, exponent))  # (N, C, H, W)
    inverse, shift = reciprocal(np.where(near, rounding_shift(powers, 12), 0).sum(1, keepdims=True), 12)
    probability = rounding_shift(doubling_high_multiply(powers, inverse), shift + 31 - 8)
    result: Int64 = np.clip(np.where(near, probability, 0) - 128, -128, 127)
    return result


def _add(op: QAdd, qa: Int64, qb: Int64, tensors: dict[str, IntTensor]) -> Int64:
    a, b, y = (tensors[name] for name in (op.a, op.b, op.name))
    twice = 2 * max(float(np.float32(a.scale)), float(np.float32(b.scale)))
    total = np.zeros_like(qa)
    for q, x in ((qa, a), (qb, b)):
        total = total + rescale((q - x.zero_point) << 20, *multiplier_of(float(np.float32(x.scale)) / twice))
    total = rescale(total, *multiplier_of(twice / (2**20 * float(np.float32(y.scale)))))
    return _clamp(total + y.zero_point, y, op.activation)


def _axis(size_in: int, size_out: int) -> tuple[Int64, Int64, Int64]:
    """Lower index, upper index and 10-bit weight of the upper one, along one axis."""
    scale = ((size_in << 10) + size_out // 2) // size_out
    position = np.arange(size_out, dtype=np.int64) * scale + scale // 2 - (1 << 9)
    low = np.maximum(truncated(position, 10), 0)
    high = np.minimum((position + (1 << 10) - 1) >> 10, size_in - 1)
    return low, np.maximum(high, 0), position - (low << 10)


def _resize(q: Int64, size: tuple[int, int]) -> Int64:
    top, bottom, v = _axis(q.shape[2], size[0])
    left, right, h = _axis(q.shape[3], size[1])
    v = v[:, None]
    rows: Int64 = q[:, :, top] * ((1 << 10) - v) + q[:, :, bottom] * v
    total: Int64 = rows[..., left] * ((1 << 10) - h) + rows[..., right] * h
    half: Int64 = np.where(total > 0, np.int64(1 << 19), np.int64(-(1 << 19)))
    return truncated(total + half, 20)


def apply(op: Operator, env: dict[str, Int64], tensors: dict[str, IntTensor]) -> Int64:
    """One operator's result, integers (N, C, H, W)."""
    y = tensors[op.name]
    if isinstance(op, QConv):
        return conv(op, env[op.x], tensors)
    if isinstance(op, QAdd):
        return _add(op, env[op.a], env[op.b], tensors)
    if isinstance(op, QFullyConnected):
        return _fully_connected(op, env[op.x], tensors[op.x], y)
    if isinstance(op, QMean):
        return _mean(env[op.x], tensors[op.x], y)
    if isinstance(op, QAveragePool):
        return _average_pool(env[op.x], op.kernel, op.stride)
    if isinstance(op, QMaxPool):
        return _max_pool(env[op.x], op.kernel, op.stride)
    if isinstance(op, QPad):
        return np.pad(env[op.x], ((0, 0), (0, 0), op.rows, op.columns), constant_values=tensors[op.x].zero_point)
    if isinstance(op, QReshape):
        flat = env[op.x].transpose(0, 2, 3, 1).reshape(len(env[op.x]), -1, 1, 1)
        return flat if y.rank == 2 else env[op.x]
    if isinstance(op, QSoftmax):
        return _softmax(env[op.x], tensors[op.x])
    if isinstance(op, QResize):
        return _resize(env[op.x], (y.shape[0], y.shape[1]))
    if isinstance(op, QNearest):
        cpu, (height, width) = torch.device("cpu"), env[op.x].shape[2:]
        rows, columns = (nearest(*ends, cpu).numpy() for ends in ((height, y.shape[0]), (width, y.shape[1])))
        return env[op.x][:, :, rows][..., columns]
    if isinstance(op, QConcat):
        return np.concatenate([env[x] for x in op.xs], 1)
    assert isinstance(op, QArgMax)  # noqa: S101 (the union is exhausted)
    largest: Int64 = env[op.x].argmax(1)[:, None]
    return largest


def run(graph: IntegerGraph, q: Tensor) -> Tensor:
    """The graph's output for quantized maps (N, C, H, W), as the reference kernels compute it."""
    env = {graph.input: q.numpy().astype(np.int64)}
    for op in graph.operators:
        env[op.name] = apply(op, env, graph.tensors)
    return torch.from_numpy(env[graph.output])
