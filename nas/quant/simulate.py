"""Run an `IntegerGraph` in torch, bit for bit as LiteRT's XNNPACK kernels do.

Integers are kept in float32 tensors (N, C, H, W). 1 x 1 convolutions are int8 matrix products (`products.py`), others
are exact in float32 while every accumulator stays below 2^24, which is checked for each; float64 beyond. The rules were
derived from the runtime by experiment; tests compare with it. Everything runs on the device of the maps.

Tensors of other ranks are in the file's order, N in front. The rules of operators that do not sum over channels or axes
are in `integer_arithmetic`, `integer_tables`, `integer_resizing` and `integer_rearranging`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.quant import integer_arithmetic, integer_tables, integer_windows, products
from nas.quant.file_order import dimension, reshaped, to_file_order
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
from nas.quant.integer_operators import Pointwise, QConstant
from nas.quant.integer_rearranging import constant, rearranged
from nas.quant.integer_resizing import resized

FLOAT32_EXACT = 2**24
Applied = Callable[[Operator, dict[str, Tensor], dict[str, IntTensor]], Tensor]


def quantize(x: Tensor, tensor: IntTensor) -> Tensor:
    """Real values to the tensor's integers (as float32)."""
    return (torch.round(x / tensor.scale) + tensor.zero_point).clamp_(-128, 127)


def dequantize(q: Tensor, tensor: IntTensor) -> Tensor:
    return (q - tensor.zero_point) * tensor.scale


Numbers = TypeVar("Numbers", bound=np.generic)


def oihw(op: QConv | QTransposedConv) -> NDArray[np.int8]:
    return _oihw(op, op.weight)


def _oihw(op: QConv | QTransposedConv, weight: NDArray[Numbers]) -> NDArray[Numbers]:
    depthwise = isinstance(op, QConv) and op.depthwise
    return weight.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))  # to (O, I/groups, k, k)


def _reach(op: Weighted, x: IntTensor) -> int:
    """A bound on the magnitude of the accumulators of `op`, in whatever order they are summed."""
    span = max(127 - x.zero_point, x.zero_point + 128)
    weight = op.weight if isinstance(op, QFullyConnected) else oihw(op)
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
    if real.ndim == 4:
        multiplier = multiplier.view(1, -1, 1, 1)
    return real.mul_(multiplier).round_().add_(y.zero_point).clamp_(*integer_arithmetic.bounds(op.activation, y))


def accumulate(op: Weighted, q: Tensor, x: IntTensor) -> Tensor:
    """The accumulators (N, O, H, W), or (N, ..., O), bias included, for the integers `q` of the tensor `x`."""
    reach = _reach(op, x)
    if products.is_product(op, q.shape[1]) and reach < products.INT32_EXACT and products.exact_on(q.device):
        return products.accumulate(op, q, x)
    return accumulate_in_float(op, q, x, _exact_dtype(op, reach, q.device))


def accumulate_in_float(op: Weighted, q: Tensor, x: IntTensor, dtype: torch.dtype) -> Tensor:
    """`accumulate`, for any operator, in a float that is wide enough."""
    weight = op.weight if isinstance(op, QFullyConnected) else np.ascontiguousarray(oihw(op))
    kernel, bias = (torch.from_numpy(part).to(q.device, dtype) for part in (weight, op.bias))
    return _summed(op, (q - x.zero_point).to(dtype), kernel, bias)


def _summed(op: Weighted, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The layer's sums over `x`, all in one float type."""
    if isinstance(op, QConv):
        return integer_windows.convolved(x, kernel, bias, op)
    if isinstance(op, QTransposedConv):
        return integer_windows.transposed(x, kernel, bias, op)
    if x.ndim == 4:
        return F.linear(x.flatten(1), kernel, bias)[:, :, None, None]
    return F.linear(x, kernel, bias)


def in_float(op: QFloatLayer, q: Tensor, x: IntTensor, y: IntTensor) -> Tensor:
    """Computed in float, then integers again: as near as float sums are, which every kernel adds in another order."""
    weight = op.weight if isinstance(op.layer, QFullyConnected) else np.ascontiguousarray(_oihw(op.layer, op.weight))
    kernel, bias = (torch.from_numpy(part).to(q.device) for part in (weight, op.bias))
    real = _summed(op.layer, dequantize(q.float(), x), kernel, bias)
    if op.layer.activation != "none":
        real = real.clamp(0, 6 if op.layer.activation == "relu6" else None)
    return quantize(real, y)


def _average_pool(op: QAveragePool, q: Tensor) -> Tensor:
    """The mean of the integers, ties away from zero."""
    total, count = integer_windows.sums(q.double(), op)
    real = total / count
    return (torch.sign(real) * torch.floor(real.abs() + 0.5)).float()


def _softmax(q: Tensor, x: IntTensor) -> Tensor:
    """The builtin kernel's table of float32 exponentials, summed in the channels' order."""
    axis = dimension(q, -1)
    table = np.exp(np.float32(-x.scale) * np.arange(256, dtype=np.float32))
    powers = table[(q.amax(axis, keepdim=True) - q).cpu().numpy().astype(np.int64)]
    total = np.add.accumulate(powers, axis=axis, dtype=np.float32).take([-1], axis)
    probability = powers * (np.float32(1) / (total * np.float32(1 / 256)))
    return torch.from_numpy(np.rint(probability) - 128).clamp_(-128, 127).to(q.device)


def mean(op: QMean, q: Tensor, x: IntTensor, y: IntTensor, shift: int = 0) -> Tensor:
    """Both zero points make one float32 term, added to the scaled sum of the raw integers before rounding.

    The file's integers are those of `q` plus `shift`.
    """
    axes = [dimension(q, axis) for axis in op.axes]
    positions = prod(q.shape[axis] for axis in axes)
    multiplier = np.float32(x.scale) / np.float32(y.scale) * (np.float32(1) / np.float32(positions))
    offset = np.float32(y.zero_point + shift) - multiplier * np.float32(positions * (x.zero_point + shift))
    total = q.double().sum(axes, keepdim=True).add_(positions * shift).float()
    result = total.mul_(float(multiplier)).add_(float(offset)).round_().sub_(shift).clamp_(-128, 127)
    return result if op.keep_dims else reshaped(result, y.shape)


def apply(op: Operator, env: dict[str, Tensor], tensors: dict[str, IntTensor]) -> Tensor:
    """One operator's result from the integers in `env`."""
    y = tensors[op.name]
    match op:
        case QConstant():
            return constant(op, y).float()
        case QConv() | QTransposedConv() | QFullyConnected():
            return _requantized(accumulate(op, env[op.x], tensors[op.x]), op, tensors[op.x], y)
        case QFloatLayer():
            return in_float(op, env[op.x], tensors[op.x], y)
        case QMean():
            return mean(op, env[op.x], tensors[op.x], y)
        case QResize():
            return resized(op, env[op.x], (y.shape[0], y.shape[1]))
        case QAveragePool():
            return _average_pool(op, env[op.x])
        case QMaxPool():
            return integer_windows.largest(env[op.x], op)
        case QSoftmax():
            return _softmax(env[op.x], tensors[op.x])
        case QArgMax():
            return env[op.x].argmax(dimension(env[op.x], -1), keepdim=True)
    if isinstance(op, Arithmetic):
        return integer_arithmetic.xnnpack(op, env, tensors)
    if isinstance(op, Pointwise):
        return integer_tables.looked_up(op, env[op.x], tensors, integer_tables.XNNPACK)
    return rearranged(op, env, tensors)


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
    """The graph's output, the first of several, for quantized images (N, C, H, W)."""
    return outputs_of(graph, q, applied)[graph.output]


@torch.no_grad()
def outputs_of(graph: IntegerGraph, q: Tensor, applied: Applied = apply) -> dict[str, Tensor]:
    """Every output by its name."""
    found = {op.name: y for op, y in steps(graph, q, applied) if op.name in graph.outputs}
    return {name: found[name] for name in graph.outputs}


@torch.no_grad()
def steps(graph: IntegerGraph, q: Tensor, applied: Applied = apply) -> Iterator[tuple[Operator, Tensor]]:
    """Each operator with its result, in order; tensors are freed once read for the last time."""
    last = {name: op.name for op in graph.operators for name in reads(op)}
    env = {graph.input: q.float()}
    for op in graph.operators:
        env[op.name] = applied(op, env, graph.tensors).to(q.device)  # where a constant is not made
        yield op, env[op.name]
        for name in reads(op):
            if last[name] == op.name:
                env.pop(name, None)


def as_nhwc(q: Tensor, dtype: type[np.int8 | np.int32] = np.int8) -> NDArray[np.int8 | np.int32]:
    """(N, C, H, W) integers as the runtime's (N, H, W, C) array; those of other ranks are in its order."""
    return np.ascontiguousarray(to_file_order(q).cpu().numpy().astype(dtype))
