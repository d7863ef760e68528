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

from nas.quant import integer_arithmetic, integer_resizing, integer_tables, integer_windows
from nas.quant.file_order import dimension, reshaped
from nas.quant.fixed_point import (
    Int64,
    doubling_high_multiply,
    exponential,
    multiplier_of,
    reciprocal,
    rescale,
    rescale_once,
    rounding_shift,
)
from nas.quant.integer_arithmetic import clamped
from nas.quant.integer_graph import (
    Arithmetic,
    IntegerGraph,
    IntTensor,
    Operator,
    QArgMax,
    QAveragePool,
    QConv,
    QFloatLayer,
    QFullyConnected,
    QMaxPool,
    QMean,
    QResize,
    QSoftmax,
    QTransposedConv,
    Weighted,
    reads,
)
from nas.quant.integer_operators import Pointwise, QConstant, Rearranging
from nas.quant.integer_rearranging import constant, rearranged
from nas.quant.simulate import in_float, oihw


def _dimension(q: Int64, axis: int) -> int:
    return dimension(torch.from_numpy(q), axis)


def conv(op: QConv | QTransposedConv, q: Int64, tensors: dict[str, IntTensor], unsigned: bool = False) -> Int64:
    """A convolution of the integers `q` (N, C, H, W); `unsigned` where the file's are uint8."""
    x, y = tensors[op.x], tensors[op.name]
    kernel = torch.from_numpy(np.ascontiguousarray(oihw(op))).double()
    bias, real = torch.from_numpy(op.bias).double(), torch.from_numpy(q - x.zero_point).double()
    if isinstance(op, QConv):
        total = integer_windows.convolved(real, kernel, bias, op)
    else:
        total = integer_windows.transposed(real, kernel, bias, op)
    return _requantized(total.numpy().astype(np.int64), op, x, y, unsigned)


def _requantized(total: Int64, op: Weighted, x: IntTensor, y: IntTensor, unsigned: bool = False) -> Int64:
    """Accumulators (N, O, H, W) to the output's integers, clamped to the activation."""
    product = np.float32(x.scale) * op.weight_scale  # uint8's multiplier is a float32; int8's has double precision
    if not unsigned:
        product = np.float64(np.float32(x.scale)) * op.weight_scale.astype(np.float64)
    scales = product.astype(np.float64) / np.float64(np.float32(y.scale))
    multipliers = np.array([multiplier_of(float(scale)) for scale in scales], np.int64)  # (O or 1, 2)
    shape = (1, -1, 1, 1) if total.ndim == 4 else (-1,)
    q31, exponent = (multipliers[:, i].reshape(shape) for i in (0, 1))
    scaled = rescale_once if isinstance(op, QFullyConnected) else rescale
    return clamped(scaled(total, q31, exponent) + y.zero_point, y, op.activation)


def _fully_connected(op: QFullyConnected, q: Int64, x: IntTensor, y: IntTensor) -> Int64:
    vectors = (q - x.zero_point)[:, :, 0, 0] if q.ndim == 4 else q - x.zero_point
    total = vectors @ op.weight.T.astype(np.int64) + op.bias
    return _requantized(total[:, :, None, None] if q.ndim == 4 else total, op, x, y)


def _mean(op: QMean, q: Int64, x: IntTensor, y: IntTensor) -> Int64:
    """The division by the number of positions is part of the multiplier, truncated."""
    axes = tuple(_dimension(q, axis) for axis in op.axes)
    positions = math.prod(q.shape[axis] for axis in axes)
    total = (q - x.zero_point).sum(axes, keepdims=True)
    q31, exponent = multiplier_of(float(np.float32(x.scale)) / float(np.float32(y.scale)))
    shift = min(positions.bit_length() - 1, 31 + exponent)
    mean = clamped(rescale(total, (q31 << shift) // positions, exponent - shift) + y.zero_point, y)
    return mean if op.keep_dims else reshaped(torch.from_numpy(mean), y.shape).numpy()


def _average_pool(op: QAveragePool, q: Int64) -> Int64:
    """The mean of the integers, ties away from zero."""
    total, count = (np.asarray(part, np.int64) for part in integer_windows.sums(torch.from_numpy(q).double(), op))
    mean: Int64 = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return mean


def _softmax(q: Int64, x: IntTensor) -> Int64:
    """Fixed-point exponentials of 5 integer bits, their sum of 12; differences beyond those 5 bits count as zero."""
    q31, exponent = multiplier_of(min(float(np.float32(x.scale)) * 2**26, 2.0**31 - 1))
    axis = _dimension(q, -1)
    below = q - q.max(axis, keepdims=True)
    near = below >= -math.floor(31 * 2.0 ** (26 - exponent))
    powers = exponential(rescale(np.where(near, below, 0), q31, exponent))
    inverse, shift = reciprocal(np.where(near, rounding_shift(powers, 12), 0).sum(axis, keepdims=True), 12)
    probability = rounding_shift(doubling_high_multiply(powers, inverse), shift + 31 - 8)
    result: Int64 = np.clip(np.where(near, probability, 0) - 128, -128, 127)
    return result


def apply(op: Operator, env: dict[str, Int64], tensors: dict[str, IntTensor]) -> Int64:
    """One operator's result, integers (N, C, H, W)."""
    y = tensors[op.name]
    match op:
        case QConv() | QTransposedConv():
            return conv(op, env[op.x], tensors)
        case QFullyConnected():
            return _fully_connected(op, env[op.x], tensors[op.x], y)
        case QFloatLayer():
            return in_float(op, torch.from_numpy(env[op.x]), tensors[op.x], y).long().numpy()
        case QMean():
            return _mean(op, env[op.x], tensors[op.x], y)
        case QResize():
            return integer_resizing.reference(op, env[op.x], (y.shape[0], y.shape[1]))
        case QAveragePool():
            return _average_pool(op, env[op.x])
        case QSoftmax():
            return _softmax(env[op.x], tensors[op.x])
        case QArgMax():
            return np.expand_dims(env[op.x].argmax(axis := _dimension(env[op.x], -1)), axis)
    if isinstance(op, Arithmetic):
        return integer_arithmetic.reference(op, env, tensors)
    return _in_torch(op, {name: torch.from_numpy(env[name]) for name in reads(op)}, tensors).numpy()


def _in_torch(
    op: QMaxPool | Pointwise | Rearranging | QConstant, env: dict[str, Tensor], tensors: dict[str, IntTensor]
) -> Tensor:
    """Operators that compute nothing, or by a table."""
    if isinstance(op, QConstant):
        return constant(op, tensors[op.name]).long()
    if isinstance(op, QMaxPool):
        return integer_windows.largest(env[op.x].double(), op).long()
    if isinstance(op, Pointwise):
        return integer_tables.looked_up(op, env[op.x], tensors, integer_tables.REFERENCE)
    return rearranged(op, env, tensors)


def run(graph: IntegerGraph, q: Tensor) -> Tensor:
    """The graph's output, the first of several, for quantized maps (N, C, H, W)."""
    return outputs_of(graph, q)[graph.output]


def outputs_of(graph: IntegerGraph, q: Tensor) -> dict[str, Tensor]:
    """Every output by its name."""
    env = {graph.input: q.numpy().astype(np.int64)}
    for op in graph.operators:
        env[op.name] = apply(op, env, graph.tensors)
    return {name: torch.from_numpy(env[name]) for name in graph.outputs}
