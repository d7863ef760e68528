"""Run an `IntegerGraph` in torch, bit for bit as LiteRT's XNNPACK kernels do.

Integers are kept in float32 tensors (N, C, H, W). 1 x 1 convolutions are int8 matrix products (`products.py`), others
are exact in float32 while every accumulator stays below 2^24, which is checked for each; float64 beyond. The rules were
derived from the runtime by experiment; tests compare with it. Everything runs on the device of the maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.networks.blocks import conv_same, max_pool_same
from nas.quant import products
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
    QMaxPool,
    QMean,
    QNearest,
    QPad,
    QReshape,
    QResize,
    QSoftmax,
    Weighted,
    reads,
)

FLOAT32_EXACT = 2**24
Applied = Callable[[Operator, dict[str, Tensor], dict[str, IntTensor]], Tensor]


def quantize(x: Tensor, tensor: IntTensor) -> Tensor:
    """Real values to the tensor's integers (as float32)."""
    return (torch.round(x / tensor.scale) + tensor.zero_point).clamp_(-128, 127)


def dequantize(q: Tensor, tensor: IntTensor) -> Tensor:
    return (q - tensor.zero_point) * tensor.scale


def oihw(op: QConv) -> NDArray[np.int8]:
    return op.weight.transpose((3, 0, 1, 2) if op.depthwise else (0, 3, 1, 2))  # to (O, I/groups, k, k)


def _reach(op: Weighted, x: IntTensor) -> int:
    """A bound on the magnitude of the accumulators of `op`, in whatever order they are summed."""
    span = max(127 - x.zero_point, x.zero_point + 128)
    weight = oihw(op) if isinstance(op, QConv) else op.weight
    sums = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1)
    return int((sums * span + np.abs(op.bias.astype(np.int64))).max())


def _exact_dtype(op: Weighted, reach: int, device: torch.device) -> torch.dtype:
    """The narrowest float in which no accumulator can lose a bit."""
    plain = device.type == "cpu" or (isinstance(op, QConv) and op.depthwise)  # elsewhere TF32 or Winograd may round
    return torch.float32 if plain and reach < FLOAT32_EXACT else torch.float64


def _requantized(accumulator: Tensor, op: Weighted, x: IntTensor, y: IntTensor) -> Tensor:
    """Integer accumulators (N, O, H, W) to the output's integers, clamped to the activation."""
    multiplier = torch.from_numpy(np.float32(x.scale) * op.weight_scale / np.float32(y.scale)).to(accumulator.device)
    real = accumulator.to(torch.float32, memory_format=torch.contiguous_format)
    return real.mul_(multiplier.view(1, -1, 1, 1)).round_().add_(y.zero_point).clamp_(*_bounds(op.activation, y))


def _bounds(activation: Activation, y: IntTensor) -> tuple[int, int]:
    """The smallest and the largest integer after an activation."""
    low, high = -128, 127
    if activation != "none":
        low = max(low, y.zero_point)
    if activation == "relu6":
        high = min(high, round(float(np.float32(6) / np.float32(y.scale) + np.float32(y.zero_point))))
    return low, high


def accumulate(op: Weighted, q: Tensor, x: IntTensor) -> Tensor:
    """The accumulators (N, O, H, W), bias included, for the integers `q` of the tensor `x`."""
    reach = _reach(op, x)
    if products.is_product(op) and reach < products.INT32_EXACT and products.exact_on(q.device):
        return products.accumulate(op, q, x)
    return accumulate_in_float(op, q, x, _exact_dtype(op, reach, q.device))


def accumulate_in_float(op: Weighted, q: Tensor, x: IntTensor, dtype: torch.dtype) -> Tensor:
    """`accumulate`, for any operator, in a float that is wide enough."""
    weight = np.ascontiguousarray(oihw(op)) if isinstance(op, QConv) else op.weight
    kernel, bias = (torch.from_numpy(part).to(q.device, dtype) for part in (weight, op.bias))
    real = (q - x.zero_point).to(dtype)
    if isinstance(op, QConv):
        return conv_same(real, kernel, bias, op.stride, op.dilation)
    return F.linear(real.flatten(1), kernel, bias)[:, :, None, None]


def _average_pool(q: Tensor, kernel: int, stride: int) -> Tensor:
    """The mean of the integers, ties away from zero."""
    mean = F.avg_pool2d(q.double(), kernel, stride)
    return (torch.sign(mean) * torch.floor(mean.abs() + 0.5)).float()


def _softmax(q: Tensor, x: IntTensor) -> Tensor:
    """The builtin kernel's table of float32 exponentials, summed in the channels' order."""
    table = np.exp(np.float32(-x.scale) * np.arange(256, dtype=np.float32))
    powers = table[(q.amax(1, keepdim=True) - q).cpu().numpy().astype(np.int64)]  # (N, C, H, W)
    total = np.add.accumulate(powers, axis=1, dtype=np.float32)[:, -1:]
    probability = powers * (np.float32(1) / (total * np.float32(1 / 256)))
    return torch.from_numpy(np.rint(probability) - 128).clamp_(-128, 127).to(q.device)


def _add(op: QAdd, qa: Tensor, qb: Tensor, tensors: Mapping[str, IntTensor]) -> Tensor:
    a, b, y = (tensors[name] for name in (op.a, op.b, op.name))
    ratio_a = np.float32(a.scale) / np.float32(y.scale)
    ratio_b = np.float32(b.scale) / np.float32(y.scale)
    shift = 20 - math.floor(math.log2(max(ratio_a, ratio_b)))
    # The products stay below 2^32: int64 holds them, and float64 holds them faster.
    factor_a, factor_b = round(float(ratio_a) * 2**shift), round(float(ratio_b) * 2**shift)
    offset = 2 ** (shift - 1) - factor_a * a.zero_point - factor_b * b.zero_point
    total = (qa.double() * factor_a).add_(qb.double() * factor_b).add_(offset)
    result: Tensor = total.mul_(2.0**-shift).floor_().add_(y.zero_point).clamp_(*_bounds(op.activation, y)).float()
    return result


def _mean(q: Tensor, x: IntTensor, y: IntTensor) -> Tensor:
    """Both zero points make one float32 term, added to the scaled sum of the raw integers before rounding."""
    positions = q.shape[2] * q.shape[3]
    multiplier = np.float32(x.scale) / np.float32(y.scale) * (np.float32(1) / np.float32(positions))
    offset = np.float32(y.zero_point) - multiplier * np.float32(positions * x.zero_point)
    total = q.double().sum((2, 3), keepdim=True).float()
    return total.mul_(float(multiplier)).add_(float(offset)).round_().clamp_(-128, 127)


def _axis(size_in: int, size_out: int, device: torch.device) -> Iterator[Tensor]:
    """Lower index, upper index and 11-bit weight of the upper one, along one axis."""
    ratio = np.float32(size_in) / np.float32(size_out)
    position = (np.arange(size_out, dtype=np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)
    position = position.clip(0, size_in - 1).astype(np.float32)
    low = position.astype(np.int64)
    weight = np.rint((position - low.astype(np.float32)) * np.float32(2048)).astype(np.float64)
    high = np.minimum(low + 1, size_in - 1)
    return (torch.from_numpy(part).to(device) for part in (low, high, weight))


def resize(q: Tensor, size: tuple[int, int]) -> Tensor:
    """XNNPACK's fixed-point bilinear: 11 bits per axis, rounded once."""
    q = q.double()
    top, bottom, weight = _axis(q.shape[2], size[0], q.device)
    rows = q[:, :, top] * 2048 + (q[:, :, bottom] - q[:, :, top]) * weight[:, None]
    left, right, weight = _axis(q.shape[3], size[1], q.device)
    total = rows[..., left] * 2048 + (rows[..., right] - rows[..., left]) * weight
    return ((total + 2**21) * 2.0**-22).floor_().float()


def nearest(size_in: int, size_out: int, device: torch.device) -> Tensor:
    """The index of the nearest position for each of the output's, along one axis; the same in all kernel sets."""
    ratio = np.float32(size_in) / np.float32(size_out)
    position = np.floor((np.arange(size_out, dtype=np.float32) + np.float32(0.5)) * ratio)
    return torch.from_numpy(np.minimum(position.astype(np.int64), size_in - 1)).to(device)


def apply(op: Operator, env: dict[str, Tensor], tensors: dict[str, IntTensor]) -> Tensor:
    """One operator's result from the integers in `env`."""
    y = tensors[op.name]
    if isinstance(op, Weighted):
        return _requantized(accumulate(op, env[op.x], tensors[op.x]), op, tensors[op.x], y)
    if isinstance(op, QAdd):
        return _add(op, env[op.a], env[op.b], tensors)
    if isinstance(op, QMean):
        return _mean(env[op.x], tensors[op.x], y)
    if isinstance(op, QResize):
        return resize(env[op.x], y.shape[:2])
    if isinstance(op, QNearest):
        top, left = (nearest(*ends, env[op.x].device) for ends in zip(env[op.x].shape[2:], y.shape[:2], strict=True))
        return env[op.x][:, :, top][..., left]
    if isinstance(op, QAveragePool):
        return _average_pool(env[op.x], op.kernel, op.stride)
    if isinstance(op, QMaxPool):
        return max_pool_same(env[op.x], op.kernel, op.stride)
    if isinstance(op, QPad):
        return F.pad(env[op.x], (*op.columns, *op.rows), value=tensors[op.x].zero_point)
    if isinstance(op, QReshape):
        return env[op.x].permute(0, 2, 3, 1).flatten(1)[:, :, None, None] if y.rank == 2 else env[op.x]
    if isinstance(op, QSoftmax):
        return _softmax(env[op.x], tensors[op.x])
    if isinstance(op, QConcat):
        return torch.cat([env[x] for x in op.xs], 1)
    assert isinstance(op, QArgMax)  # noqa: S101 (the union is exhausted)
    return env[op.x].argmax(1, keepdim=True)


@torch.no_grad()
def simulate(
    operators: Iterable[Operator], tensors: dict[str, IntTensor], env: dict[str, Tensor], applied: Applied = apply
) -> Tensor:
    """Run operators on the integers in `env`; results are stored in `env`, the last one is returned."""
    for op in operators:
        env[op.name] = applied(op, env, tensors)
    return env[op.name]


@torch.no_grad()
def run(graph: IntegerGraph, q: Tensor, applied: Applied = apply) -> Tensor:
    """The graph's output for quantized images (N, C, H, W); tensors are freed once read for the last time."""
    last = {name: op.name for op in graph.operators for name in reads(op)}
    env = {graph.input: q.float()}
    for op in graph.operators:
        env[op.name] = applied(op, env, graph.tensors)
        for name in reads(op):
            if last[name] == op.name:
                env.pop(name, None)
    return env[graph.output]


def as_nhwc(q: Tensor, dtype: type[np.int8 | np.int32] = np.int8) -> NDArray[np.int8 | np.int32]:
    """(N, C, H, W) integers as the runtime's (N, H, W, C) array."""
    return np.ascontiguousarray(q.permute(0, 2, 3, 1).cpu().numpy().astype(dtype))
