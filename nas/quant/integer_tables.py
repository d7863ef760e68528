"""Operators of single integers: on any kernels a table of 256 results (PRELU: one for each channel).

XNNPACK runs some of them; the others run on the builtin kernels, of which most are the reference ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from nas.quant.file_order import dimension
from nas.quant.fixed_point import Int64, multiplier_of, rescale, rounding_shift, truncated
from nas.quant.integer_graph import IntTensor
from nas.quant.integer_operators import (
    Pointwise,
    QHardSwish,
    QLeakyRelu,
    QPRelu,
    QRelu,
    QRelu6,
    QRequantize,
    QSigmoid,
    QTanh,
)

INT8 = np.arange(-128, 128, dtype=np.int64)
Table = Int64
"""(256,) or, for each channel, (C, 256)."""
Rules = Mapping[type, Callable[..., Table]]


def _ratio(x: IntTensor, y: IntTensor) -> np.float32:
    return np.float32(x.scale) / np.float32(y.scale)


def _clip(values: Int64) -> Table:
    return np.clip(values, -128, 127)


def _evaluated(op: QSigmoid | QTanh, x: IntTensor, y: IntTensor) -> Table:
    """The function in float32, rounded, ties away from zero."""
    real = np.float32(x.scale) * (INT8 - x.zero_point).astype(np.float32)
    wide = real.astype(np.float64)  # from which float32's result is rounded, as the C library's
    if isinstance(op, QTanh):
        value = np.tanh(wide).astype(np.float32)
    else:
        value = np.float32(1) / (np.float32(1) + np.exp(np.minimum(-wide, 80)).astype(np.float32))  # beyond: 0
    steps = value * (np.float32(1) / np.float32(y.scale))
    return _clip((np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5))).astype(np.int64) + y.zero_point)


def _relu(op: QRelu | QRelu6, x: IntTensor, y: IntTensor) -> Table:
    values = rescale(INT8 - x.zero_point, *multiplier_of(float(_ratio(x, y)))) + y.zero_point
    high = 127
    if isinstance(op, QRelu6):
        high = min(high, y.zero_point + math.floor(float(np.float32(6) / np.float32(y.scale)) + 0.5))
    return np.clip(values, max(-128, y.zero_point), high)


def _leaky_relu(op: QLeakyRelu, x: IntTensor, y: IntTensor) -> Table:
    centred = INT8 - x.zero_point
    slope = float(np.float32(x.scale) * np.float32(op.alpha) / np.float32(y.scale))
    negative = rescale(centred, *multiplier_of(slope)) if slope else np.zeros_like(centred)
    positive = rescale(centred, *multiplier_of(float(_ratio(x, y))))
    return _clip(np.where(centred >= 0, positive, negative) + y.zero_point)


def _prelu(op: QPRelu, x: IntTensor, y: IntTensor) -> Table:
    centred = INT8 - x.zero_point
    slopes = op.slope.astype(np.int64)[:, None] - op.slope_zero_point
    ratio = np.float32(x.scale) * np.float32(op.slope_scale) / np.float32(y.scale)
    negative = rescale(centred * slopes, *multiplier_of(float(ratio)))
    positive = rescale(centred, *multiplier_of(float(_ratio(x, y))))
    return _clip(np.where(centred >= 0, positive, negative) + y.zero_point)


def _requantized(_op: QRequantize, x: IntTensor, y: IntTensor) -> Table:
    scale = float(np.float32(x.scale)) / float(np.float32(y.scale))
    return _clip(rescale(INT8 - x.zero_point, *multiplier_of(scale)) + y.zero_point)


def _hard_swish(_op: QHardSwish, x: IntTensor, y: IntTensor) -> Table:
    """x * relu6(x + 3) / 6 in 16-bit fixed point."""
    fine_scale = np.float32(1 / 128) * np.float32(x.scale)
    factor, shift = _multiplier16(fine_scale / np.float32(y.scale))
    gate_factor, gate_shift = _multiplier16(fine_scale / np.float32(3 / 32768))
    fine = (INT8 - x.zero_point) << 7
    scaled = _doubling_high_multiply16(fine, factor)
    gate = fine
    if gate_shift > 0:
        gate = _int16(gate << (gate_shift - 1))
    gate = _doubling_high_multiply16(gate, gate_factor)
    if gate_shift > 0:
        gate = _int16(gate << 1)
    elif gate_shift < 0:
        gate = rounding_shift(gate, -gate_shift)
    gate = (gate + (1 << 15)) >> 1
    return _clip(rounding_shift(truncated(gate * scaled, 15), -shift) + y.zero_point)


def _multiplier16(scale: np.float32) -> tuple[int, int]:
    """As `multiplier_of`, of 15 bits."""
    q31, exponent = multiplier_of(float(scale))
    return min((q31 + (1 << 15)) >> 16, 2**15 - 1), exponent


def _int16(values: Int64) -> Int64:
    return np.clip(values, -(2**15), 2**15 - 1)


def _doubling_high_multiply16(a: Int64, b: int) -> Int64:
    product = a * b
    return truncated(product + np.where(product >= 0, 1 << 14, 1 - (1 << 14)), 15)


def _shifted(op: QRequantize | QLeakyRelu, x: IntTensor, y: IntTensor) -> Table:
    """XNNPACK's products with multipliers of 8 fractional bits; scales out of their range it leaves to the builtin."""
    slope = op.alpha if isinstance(op, QLeakyRelu) else 1.0
    ratios = [float(_ratio(x, y) * np.float32(factor)) for factor in (1, slope)]
    if not all(2**-8 <= abs(ratio) <= 2**7 for ratio in ratios):
        return REFERENCE[type(op)](op, x, y)
    positive, negative = (round(256 * ratio) for ratio in ratios)
    centred = INT8 - x.zero_point
    return _clip((centred * np.where(centred > 0, positive, negative) + (y.zero_point << 8) + 128) >> 8)


REFERENCE: Rules = {
    QRequantize: _requantized,
    QRelu: _relu,
    QRelu6: _relu,
    QLeakyRelu: _leaky_relu,
    QPRelu: _prelu,
    QSigmoid: _evaluated,
    QTanh: _evaluated,
    QHardSwish: _hard_swish,
}
XNNPACK: Rules = {
    **REFERENCE,
    QRequantize: _shifted,
    QLeakyRelu: _shifted,
}


def looked_up(op: Pointwise, q: Tensor, tensors: Mapping[str, IntTensor], rules: Rules) -> Tensor:
    """The result of `op` for the integers `q`, in their type."""
    x = tensors[op.x]
    table = torch.from_numpy(rules[type(op)](op, x, tensors[op.name])).to(q.device, q.dtype)
    index = q.long() + 128
    if table.ndim == 2 and len(table) > 1:
        axis = dimension(q, -1) % q.ndim
        index += 256 * torch.arange(len(table), device=q.device).view([-1 if i == axis else 1 for i in range(q.ndim)])
    return table.flatten()[index]
