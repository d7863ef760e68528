"""Run an `IntegerGraph` bit for bit as TFLite's reference kernels do (OpResolverType.BUILTIN_REF).

They requantize with a 31-bit multiplier and a shift, rounding twice (gemmlowp's arithmetic), where XNNPACK rounds
once in float32; so the two kernel sets differ in the last place, and a board that runs these is compared with these.
Slow and obvious: int64 throughout.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.blocks import conv_same
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator, QAdd, QArgMax, QConcat, QConv, QResize
from nas.quant.simulate import oihw

Int64 = NDArray[np.int64]


def multiplier_of(scale: float) -> tuple[int, int]:
    """A positive real as (31-bit integer, exponent): scale = q * 2^(exponent - 31)."""
    fraction, exponent = math.frexp(scale)
    q = math.floor(fraction * 2**31 + 0.5)
    if q == 2**31:
        q, exponent = q // 2, exponent + 1
    return (0, 0) if exponent < -31 else (q, exponent)


def _truncated(values: Int64, shift: int) -> Int64:
    """values / 2^shift as C divides: towards zero."""
    magnitude: Int64 = np.abs(values) >> shift
    return magnitude * np.sign(values)


def rescale(x: Int64, q: int | Int64, exponent: int | Int64) -> Int64:
    """x * q * 2^(exponent - 31): a saturating rounding doubling high multiply, then a rounding shift."""
    exponent = np.asarray(exponent, np.int64)
    product = x * (np.int64(1) << np.maximum(exponent, 0)) * np.asarray(q, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = _truncated(nudged, 31)
    shift = np.maximum(-exponent, 0)
    mask = (np.int64(1) << shift) - 1
    result: Int64 = (high >> shift) + ((high & mask) > (mask >> 1) + (high < 0))
    return result


def _clamp(values: Int64, y: IntTensor, activation: str = "none") -> Int64:
    low, high = -128, 127
    if activation == "relu6":
        low = max(low, y.zero_point)
        high = min(high, y.zero_point + round(float(np.float32(6) / np.float32(y.scale))))
    return np.clip(values, low, high)


def _conv(op: QConv, q: Int64, x: IntTensor, y: IntTensor) -> Int64:
    kernel = torch.from_numpy(np.ascontiguousarray(oihw(op))).double()
    bias = torch.from_numpy(op.bias).double()
    total = conv_same(torch.from_numpy(q - x.zero_point).double(), kernel, bias, op.stride, op.dilation)
    scales = [float(np.float32(x.scale)) * float(s) / float(np.float32(y.scale)) for s in op.weight_scale]
    multipliers = np.array([multiplier_of(scale) for scale in scales], np.int64)  # (O or 1, 2)
    q31, exponent = (multipliers[:, i].reshape(1, -1, 1, 1) for i in (0, 1))
    return _clamp(rescale(total.numpy().astype(np.int64), q31, exponent) + y.zero_point, y, op.activation)


def _add(qa: Int64, qb: Int64, a: IntTensor, b: IntTensor, y: IntTensor) -> Int64:
    twice = 2 * max(float(np.float32(a.scale)), float(np.float32(b.scale)))
    total = np.zeros_like(qa)
    for q, x in ((qa, a), (qb, b)):
        total = total + rescale((q - x.zero_point) << 20, *multiplier_of(float(np.float32(x.scale)) / twice))
    return _clamp(rescale(total, *multiplier_of(twice / (2**20 * float(np.float32(y.scale))))) + y.zero_point, y)


def _axis(size_in: int, size_out: int) -> tuple[Int64, Int64, Int64]:
    """Lower index, upper index and 10-bit weight of the upper one, along one axis."""
    scale = ((size_in << 10) + size_out // 2) // size_out
    position = np.arange(size_out, dtype=np.int64) * scale + scale // 2 - (1 << 9)
    low = np.maximum(_truncated(position, 10), 0)
    high = np.minimum((position + (1 << 10) - 1) >> 10, size_in - 1)
    return low, np.maximum(high, 0), position - (low << 10)


def _resize(q: Int64, size: tuple[int, int]) -> Int64:
    top, bottom, v = _axis(q.shape[2], size[0])
    left, right, h = _axis(q.shape[3], size[1])
    v = v[:, None]
    rows: Int64 = q[:, :, top] * ((1 << 10) - v) + q[:, :, bottom] * v
    total: Int64 = rows[..., left] * ((1 << 10) - h) + rows[..., right] * h
    half: Int64 = np.where(total > 0, np.int64(1 << 19), np.int64(-(1 << 19)))
    return _truncated(total + half, 20)


def apply(op: Operator, env: dict[str, Int64], tensors: dict[str, IntTensor]) -> Int64:
    """One operator's result, integers (N, C, H, W). MEAN is left to the caller's tolerance: KeyError."""
    y = tensors[op.name]
    if isinstance(op, QConv):
        return _conv(op, env[op.x], tensors[op.x], y)
    if isinstance(op, QAdd):
        return _add(env[op.a], env[op.b], tensors[op.a], tensors[op.b], y)
    if isinstance(op, QResize):
        return _resize(env[op.x], (y.shape[0], y.shape[1]))
    if isinstance(op, QConcat):
        return np.concatenate([env[x] for x in op.xs], 1)
    if isinstance(op, QArgMax):
        largest: Int64 = env[op.x].argmax(1)[:, None]
        return largest
    raise KeyError(op.name)


def run(graph: IntegerGraph, q: Tensor) -> Tensor:
    """The graph's output for quantized maps (N, C, H, W), as the reference kernels give it."""
    env = {graph.input: q.numpy().astype(np.int64)}
    for op in graph.operators:
        env[op.name] = apply(op, env, graph.tensors)
    return torch.from_numpy(env[graph.output])
