"""TFLite's other operators as float nodes, and all handlers by their operator's name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from deploy.formats.importers import tflite_layers
from deploy.formats.importers.arithmetic import Kind, clipped, combined
from deploy.formats.importers.builder import laid_out
from deploy.formats.importers.moves import arg_max, joined, mean, sliced, softmax, zero_padded
from deploy.formats.importers.network import Unsupported, Value
from deploy.formats.importers.tflite_op import LIMITS, Handler, TfliteOp
from nas.quant.float_graph import (
    Add,
    DepthToSpace,
    HardSwish,
    LeakyRelu,
    Mul,
    PRelu,
    Sigmoid,
    SpaceToDepth,
    Sub,
    Tanh,
)


def _arithmetic(kind: Kind) -> Handler:
    return lambda op: [op.activated(combined(op.b, op.name, kind, op.operand(0), op.operand(1)))]


def _div(op: TfliteOp) -> Sequence[Value]:
    with np.errstate(divide="ignore"):
        factor = 1 / op.array(1).astype(np.float64)
    return [op.activated(combined(op.b, op.name, Mul, op.value(), factor))]


def _extremum(low: bool) -> Handler:
    def handler(op: TfliteOp) -> Sequence[Value]:
        limit = op.array(1)
        if limit.size != 1:
            raise Unsupported("another limit in each place: one for all is supported")
        number = float(limit.reshape(()).astype(np.float64))
        return [clipped(op.b, op.name, op.value(), *((number, math.inf) if low else (-math.inf, number)))]

    return handler


def _limited(low: float, high: float) -> Handler:
    return lambda op: [clipped(op.b, op.name, op.value(), low, high)]


def _unary(kind: type[Sigmoid] | type[HardSwish] | type[Tanh]) -> Handler:
    def handler(op: TfliteOp) -> Sequence[Value]:
        value = op.value()
        return [op.b.value(kind(op.b.name(op.name), value.tensor), value.shape, value.axes)]

    return handler


def _leaky_relu(op: TfliteOp) -> Sequence[Value]:
    value, alpha = op.value(), float(op.info.options.others.get("Alpha", 0))
    return [op.b.value(LeakyRelu(op.b.name(op.name), value.tensor, alpha), value.shape, value.axes)]


def _prelu(op: TfliteOp) -> Sequence[Value]:
    value, slope = op.value(), op.array(1)
    slope = slope.reshape((*[1] * (len(value.shape) - slope.ndim), *slope.shape))
    node = PRelu(op.b.name(op.name), value.tensor, laid_out(slope, value.axes))
    return [op.b.value(node, value.shape, value.axes)]


def _mean(op: TfliteOp) -> Sequence[Value]:
    value = op.value()
    over = sorted({axis % len(value.shape) for axis in op.sizes(1)})
    return [op.b.shaped(mean(op.b, op.name, value, over), op.name, op.shape)]


def _softmax(op: TfliteOp) -> Sequence[Value]:
    value, beta = op.value(), float(op.info.options.others.get("Beta", 1))
    if beta != 1:
        value = combined(op.b, f"{op.name}/scaled", Mul, value, np.array(beta, np.float32))
    return [softmax(op.b, op.name, value, len(value.shape) - 1)]


def _reshape(op: TfliteOp) -> Sequence[Value]:
    return [op.b.shaped(op.value(), op.name, op.shape)]


def _transpose(op: TfliteOp) -> Sequence[Value]:
    return [op.b.transposed(op.value(), op.sizes(1))]


def _concat(op: TfliteOp) -> Sequence[Value]:
    operands = [op.operand(i) for i in range(len(op.inputs))]
    return [op.activated(joined(op.b, op.name, operands, op.option("Axis") % len(op.shape)))]


def _split(op: TfliteOp) -> Sequence[Value]:
    value, count = op.value(1), op.option("NumSplits")
    axis = op.sizes(0)[0] % len(value.shape)
    part = value.shape[axis] // max(count, 1)
    named = [(f"{op.name}/{i}" if i else op.name, range(i * part, (i + 1) * part)) for i in range(count)]
    return [sliced(op.b, name, value, {axis: places}) for name, places in named]


def _slice(op: TfliteOp) -> Sequence[Value]:
    value, begin, size = op.value(), op.sizes(1), op.sizes(2)
    ends = [n if s == -1 else b + s for n, b, s in zip(value.shape, begin, size, strict=True)]
    return [sliced(op.b, op.name, value, {i: range(b, e) for i, (b, e) in enumerate(zip(begin, ends, strict=True))})]


def _strided_slice(op: TfliteOp) -> Sequence[Value]:
    if op.option("EllipsisMask") or op.option("NewAxisMask"):
        raise Unsupported("an ellipsis or a new axis in a slice")
    value, parts = op.value(), zip(op.sizes(1), op.sizes(2), op.sizes(3), strict=True)
    taken = {}
    for axis, (begin, end, step) in enumerate(parts):
        bit = 1 << axis
        first = None if op.option("BeginMask") & bit else begin
        last = None if op.option("EndMask") & bit else end
        if op.option("ShrinkAxisMask") & bit:
            first, last = begin, begin + 1 or None
        taken[axis] = range(value.shape[axis])[slice(first, last, step)]
    return [op.b.shaped(sliced(op.b, op.name, value, taken), op.name, op.shape)]


def _pad(op: TfliteOp) -> Sequence[Value]:
    if op.optional_array(2) is not None and float(op.array(2).reshape(()).astype(np.float64)) != 0:
        raise Unsupported("it pads with another number than zero")
    around = op.array(1).astype(np.int64)
    return [zero_padded(op.b, op.name, op.value(), {i: (int(a), int(z)) for i, (a, z) in enumerate(around)})]


def _blocks(kind: type[DepthToSpace] | type[SpaceToDepth]) -> Handler:
    def handler(op: TfliteOp) -> Sequence[Value]:
        value, axes = op.map()
        node = kind(op.b.name(op.name), op.b.arranged(value, axes), op.option("BlockSize"))
        return [op.b.windowed(node, value, axes)]

    return handler


def _arg_max(op: TfliteOp) -> Sequence[Value]:
    value = op.value()
    return [arg_max(op.b, op.name, value, op.sizes(1)[0] % len(value.shape), keep=False)]


HANDLERS: Mapping[str, Handler] = {
    **tflite_layers.HANDLERS,
    "ADD": _arithmetic(Add),
    "ARG_MAX": _arg_max,
    "CONCATENATION": _concat,
    "DEPTH_TO_SPACE": _blocks(DepthToSpace),
    "DIV": _div,
    "EXPAND_DIMS": _reshape,
    "HARD_SWISH": _unary(HardSwish),
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _unary(Sigmoid),
    "MAXIMUM": _extremum(low=True),
    "MEAN": _mean,
    "MINIMUM": _extremum(low=False),
    "MUL": _arithmetic(Mul),
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": _prelu,
    "RELU": _limited(*LIMITS["RELU"]),
    "RELU6": _limited(*LIMITS["RELU6"]),
    "RELU_0_TO_1": _limited(*LIMITS["RELU_0_TO_1"]),
    "RELU_N1_TO_1": _limited(*LIMITS["RELU_N1_TO_1"]),
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _blocks(SpaceToDepth),
    "SPLIT": _split,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _arithmetic(Sub),
    "TANH": _unary(Tanh),
    "TRANSPOSE": _transpose,
}
