"""ONNX's operators on single elements."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from deploy.formats.importers.arithmetic import Kind, clipped, combined, hard_sigmoid
from deploy.formats.importers.builder import finite, laid_out
from deploy.formats.importers.moves import softmax
from deploy.formats.importers.network import Array, Operand, Unsupported, Value
from deploy.formats.importers.onnx_op import Handler, Handlers, Op
from nas.quant.float_graph import Add, HardSwish, LeakyRelu, Mul, PRelu, Sigmoid, Sub, Tanh


def _arithmetic(kind: Kind) -> Handler:
    return lambda op: [combined(op.builder, op.name, kind, op.operand(0), op.operand(1))]


def _div(op: Op) -> Sequence[Value]:
    value = op.operand(0)
    if not isinstance(value, Value) or isinstance(op.operand(1), Value):
        raise Unsupported("a division by what is no constant: TFLite has none on integers")
    with np.errstate(divide="ignore"):
        factor = 1 / op.array(1).astype(np.float64)
    return [combined(op.builder, op.name, Mul, value, finite(factor))]


def _neg(op: Op) -> Sequence[Value]:
    return [combined(op.builder, op.name, Mul, op.value(), np.array(-1, np.float32))]


def _sum(op: Op) -> Sequence[Operand]:
    operands = [op.operand(i) for i in range(len(op.inputs))]
    add = functools.partial(combined, op.builder, op.name, Add)
    return [functools.reduce(add, sorted(operands, key=lambda operand: not isinstance(operand, Value)))]


def _relu(op: Op) -> Sequence[Value]:
    return [clipped(op.builder, op.name, op.value(), 0.0, math.inf)]


def _clip(op: Op) -> Sequence[Value]:
    low, high = (op.optional_array(i) for i in (1, 2))
    ends = (_number(low, -math.inf), _number(high, math.inf))
    return [op.value()] if ends == (-math.inf, math.inf) else [clipped(op.builder, op.name, op.value(), *ends)]


def _number(array: Array | None, default: float) -> float:
    if array is None:
        return default
    if array.size != 1 or np.isnan(array.astype(np.float64)).any():
        raise Unsupported("it clips to other limits in each place: TFLite has one for all")
    number = float(array.reshape(()))
    return number if abs(number) < float(np.finfo(np.float32).max) else math.copysign(math.inf, number)


def _extremum(low: bool) -> Handler:
    """MAX with a constant is the lower end of a clip, MIN the upper one."""

    def handler(op: Op) -> Sequence[Value]:
        if len(op.inputs) == 1:
            return [op.value()]
        operands = [op.operand(i) for i in range(len(op.inputs))]
        values = [operand for operand in operands if isinstance(operand, Value)]
        if len(operands) != 2 or len(values) != 1:
            raise Unsupported("between several computed tensors: only limits that are constants are supported")
        limit = next(operand for operand in operands if not isinstance(operand, Value))
        number = _number(limit, 0.0)
        ends = (number, math.inf) if low else (-math.inf, number)
        return [clipped(op.builder, op.name, values[0], *ends)]

    return handler


def _leaky_relu(op: Op) -> Sequence[Value]:
    return [_unary(op, LeakyRelu(op.builder.name(op.name), op.value().tensor, op.real("alpha", 0.01)))]


def _prelu(op: Op) -> Sequence[Value]:
    value, slope = op.value(), op.array(1)
    if slope.ndim > len(value.shape) or np.broadcast_shapes(slope.shape, value.shape) != value.shape:
        raise Unsupported(f"slopes {list(slope.shape)} for {list(value.shape)}")
    slope = slope.reshape((*[1] * (len(value.shape) - slope.ndim), *slope.shape))
    return [_unary(op, PRelu(op.builder.name(op.name), value.tensor, laid_out(slope, value.axes)))]


def _unary(op: Op, node: LeakyRelu | PRelu | Sigmoid | HardSwish | Tanh) -> Value:
    return op.builder.value(node, op.value().shape, op.value().axes)


def _plain(kind: type[Sigmoid] | type[HardSwish] | type[Tanh]) -> Handler:
    return lambda op: [_unary(op, kind(op.builder.name(op.name), op.value().tensor))]


def _hard_sigmoid(op: Op) -> Sequence[Value]:
    return [hard_sigmoid(op.builder, op.name, op.value(), op.real("alpha", 0.2), op.real("beta", 0.5))]


def _swish(op: Op) -> Sequence[Value]:
    """x sigmoid(alpha x)."""
    b, value, alpha = op.builder, op.value(), op.real("alpha", 1.0)
    inner = value if alpha == 1 else combined(b, f"{op.name}/scaled", Mul, value, np.array(alpha, np.float32))
    gate = b.value(Sigmoid(b.name(f"{op.name}/sigmoid"), inner.tensor), inner.shape, inner.axes)
    return [combined(b, op.name, Mul, value, gate)]


def _softmax(op: Op) -> Sequence[Value]:
    value, b = op.value(), op.builder
    rank = len(value.shape)
    axis = op.axis(op.integer("axis", -1 if op.opset >= 13 else 1), rank)
    if op.opset >= 13 or math.prod(value.shape[axis:]) == value.shape[axis]:
        return [softmax(b, op.name, value, axis)]
    rows = (math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))  # until opset 12, over all axes from this one
    y = softmax(b, op.name, b.shaped(value, f"{op.name}/rows", rows), 1)
    return [b.shaped(y, f"{op.name}/shape", value.shape)]


HANDLERS: Handlers = {
    "Add": _arithmetic(Add),
    "Clip": _clip,
    "Div": _div,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(HardSwish),
    "LeakyRelu": _leaky_relu,
    "Max": _extremum(low=True),
    "Min": _extremum(low=False),
    "Mul": _arithmetic(Mul),
    "Neg": _neg,
    "PRelu": _prelu,
    "Relu": _relu,
    "Sigmoid": _plain(Sigmoid),
    "Softmax": _softmax,
    "Sub": _arithmetic(Sub),
    "Sum": _sum,
    "Swish": _swish,
    "Tanh": _plain(Tanh),
}
