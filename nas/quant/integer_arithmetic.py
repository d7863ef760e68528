"""ADD, SUB and MUL on integers, and the clamps of activations, as XNNPACK and as the reference kernels compute them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from nas.quant.fixed_point import Int64, multiplier_of, rescale
from nas.quant.integer_graph import Activation, Arithmetic, IntTensor, QMul, QSub


def bounds(activation: Activation, y: IntTensor) -> tuple[int, int]:
    """The smallest and the largest integer after an activation, on XNNPACK."""
    low, high = -128, 127
    if activation != "none":
        low = max(low, y.zero_point)
    if activation == "relu6":
        high = min(high, round(float(np.float32(6) / np.float32(y.scale) + np.float32(y.zero_point))))
    return low, high


def clamped(values: Int64, y: IntTensor, activation: Activation = "none") -> Int64:
    """Within an activation's bounds, on the reference kernels."""
    low, high = -128, 127
    if activation != "none":
        low = max(low, y.zero_point)
    if activation == "relu6":
        six = float(np.float32(6) / np.float32(y.scale))
        high = min(high, y.zero_point + math.floor(six + 0.5))  # XNNPACK rounds with the zero point, ties to even
    return np.clip(values, low, high)


def xnnpack(op: Arithmetic, env: Mapping[str, Tensor], tensors: Mapping[str, IntTensor]) -> Tensor:
    """Of float32 integers, broadcast."""
    a, b, y = (tensors[name] for name in (op.a, op.b, op.name))
    total = _product(env[op.a], env[op.b], a, b, y) if isinstance(op, QMul) else _sum(op, env, a, b, y)
    result: Tensor = total.add_(y.zero_point).clamp_(*bounds(op.activation, y)).float()
    return result


def _sum(op: Arithmetic, env: Mapping[str, Tensor], a: IntTensor, b: IntTensor, y: IntTensor) -> Tensor:
    ratio_a = np.float32(a.scale) / np.float32(y.scale)
    ratio_b = np.float32(b.scale) / np.float32(y.scale)
    shift = 20 - math.floor(math.log2(max(ratio_a, ratio_b)))
    # The products stay below 2^32: int64 holds them, and float64 holds them faster.
    factor_a, factor_b = round(float(ratio_a) * 2**shift), round(float(ratio_b) * 2**shift)
    if isinstance(op, QSub):
        factor_b = -factor_b
    offset = 2 ** (shift - 1) - factor_a * a.zero_point - factor_b * b.zero_point
    scaled_a, scaled_b = env[op.a].double() * factor_a, env[op.b].double() * factor_b
    total = scaled_a.add_(scaled_b) if scaled_a.shape == scaled_b.shape else scaled_a + scaled_b
    result: Tensor = total.add_(offset).mul_(2.0**-shift).floor_()
    return result


def _product(qa: Tensor, qb: Tensor, a: IntTensor, b: IntTensor, y: IntTensor) -> Tensor:
    multiplier = np.float32(a.scale) * np.float32(b.scale) / np.float32(y.scale)
    return ((qa - a.zero_point) * (qb - b.zero_point)).mul_(float(multiplier)).round_()


def reference(op: Arithmetic, env: Mapping[str, Int64], tensors: Mapping[str, IntTensor]) -> Int64:
    """As the reference kernels: two roundings."""
    a, b, y = (tensors[name] for name in (op.a, op.b, op.name))
    scales = np.float32(a.scale), np.float32(b.scale)
    if isinstance(op, QMul):
        product = (env[op.a] - a.zero_point) * (env[op.b] - b.zero_point)
        total = rescale(product, *multiplier_of(float(scales[0] * scales[1] / np.float32(y.scale))))
    else:
        twice = 2 * float(max(scales))
        scaled_a, scaled_b = (
            rescale((env[name] - x.zero_point) << 20, *multiplier_of(float(scale) / twice))
            for name, x, scale in zip((op.a, op.b), (a, b), scales, strict=True)
        )
        total = scaled_a - scaled_b if isinstance(op, QSub) else scaled_a + scaled_b
        total = rescale(total, *multiplier_of(twice / (2**20 * float(np.float32(y.scale)))))
    return clamped(total + y.zero_point, y, op.activation)
