"""TFLite's operators as float nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.formats.importers.arithmetic import Kind, clipped, combined
from deploy.formats.importers.builder import NodeBuilder, laid_out
from deploy.formats.importers.moves import arg_max, joined, mean, sliced, softmax, zero_padded
from deploy.formats.importers.network import Array, Axes, Operand, Unsupported, Value
from deploy.formats.importers.products import convolution, product, transposed_convolution
from deploy.formats.tflite.read import OperatorInfo
from nas.quant.float_graph import (
    Add,
    AveragePool,
    DepthToSpace,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mul,
    PRelu,
    Resize,
    Sigmoid,
    SpaceToDepth,
    Sub,
    Tanh,
)
from nas.quant.rearranging import Coordinates, ResizeMode
from nas.quant.windows import UNPADDED, Padding, Pads, Window, pair

MAP: Axes = (1, 2, 3)
LIMITS = {"RELU": (0.0, math.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}


@dataclass(frozen=True, eq=False)
class TfliteOp:
    """An operator with its inputs: None where one is left out.

    Attributes:
        name: for the float node: that of the result.
        shape: of the result.
    """

    info: OperatorInfo
    inputs: Sequence[Operand | None]
    name: str
    shape: tuple[int, ...]
    b: NodeBuilder

    def operand(self, index: int) -> Operand:
        operand = self.inputs[index] if index < len(self.inputs) else None
        if operand is None:
            raise Unsupported(f"its input {index} is missing")
        return operand

    def value(self, index: int = 0) -> Value:
        operand = self.operand(index)
        if not isinstance(operand, Value):
            raise Unsupported(f"its input {index} is a constant")
        return operand

    def array(self, index: int) -> Array:
        operand = self.operand(index)
        if isinstance(operand, Value):
            raise Unsupported(f"its input {index} is computed from the network's input: it has to be a constant")
        return operand

    def optional_array(self, index: int) -> Array | None:
        return None if index >= len(self.inputs) or self.inputs[index] is None else self.array(index)

    def sizes(self, index: int) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array(index).reshape(-1))

    def option(self, name: str) -> int:
        return int(self.info.options.others.get(name, 0))

    @property
    def same(self) -> bool:
        return self.option("Padding") == 0

    def activated(self, y: Value) -> Value:
        """With the operator's fused activation."""
        kind = self.info.options.activation
        if kind == "NONE":
            return y
        if kind not in LIMITS:
            raise Unsupported(f"the fused activation {kind}")
        return clipped(self.b, self.name, y, *LIMITS[kind])


Handler = Callable[[TfliteOp], Sequence[Operand]]


def _map(op: TfliteOp, index: int = 0) -> tuple[Value, Axes]:
    value = op.value(index)
    if len(value.shape) != 4 or value.shape[0] != 1:
        raise Unsupported(f"it reads {list(value.shape)}: maps (1, H, W, C) are supported")
    return value, MAP


def _window(op: TfliteOp, kernel: tuple[int, int]) -> Window:
    padding: Padding = "same" if op.same else UNPADDED
    return Window(kernel, _pair(op.info.options.stride), _pair(op.info.options.dilation), padding)


def _pair(given: tuple[int, int] | None) -> int | tuple[int, int]:
    rows, columns = given or (1, 1)
    return rows if rows == columns else (rows, columns)


def _conv(op: TfliteOp) -> Sequence[Value]:
    x, weight = _map(op), op.array(1).transpose(0, 3, 1, 2)
    window = _window(op, (weight.shape[2], weight.shape[3]))
    return [op.activated(convolution(op.b, op.name, x, (weight, op.optional_array(2)), window))]


def _depthwise(op: TfliteOp) -> Sequence[Value]:
    x, weight = _map(op), op.array(1).transpose(3, 0, 1, 2)
    window = _window(op, (weight.shape[2], weight.shape[3]))
    return [op.activated(convolution(op.b, op.name, x, (weight, op.optional_array(2)), window))]


def _transposed_conv(op: TfliteOp) -> Sequence[Value]:
    x, weight, wanted = _map(op, 2), op.array(1).transpose(0, 3, 1, 2), op.sizes(0)
    window = Window((weight.shape[2], weight.shape[3]), _pair(op.info.options.stride))
    cut = []
    for n, k, s, out in zip(x[0].shape[1:3], pair(window.kernel), pair(window.stride), wanted[1:3], strict=True):
        full = (n - 1) * s + k
        first = max(full - out, 0) // 2 if op.same else 0
        cut += [first, full - out - first]
    pads: Pads = (cut[0], cut[1], cut[2], cut[3])
    window = Window(window.kernel, window.stride, padding=pads)
    return [op.activated(transposed_convolution(op.b, op.name, x, (weight, op.optional_array(3)), window))]


def _fully_connected(op: TfliteOp) -> Sequence[Value]:
    value, weight = op.value(), op.array(1)
    if op.option("WeightsFormat"):
        raise Unsupported("shuffled weights: convert the network again with a newer TensorFlow")
    if not op.option("KeepNumDims") or value.shape[-1] != weight.shape[1]:
        value = op.b.shaped(value, f"{op.name}/vector", (math.prod(value.shape) // weight.shape[1], weight.shape[1]))
    y = product(op.b, op.name, value, weight, op.optional_array(2))
    return [op.activated(op.b.shaped(y, op.name, op.shape))]


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


def _pool(kind: type[AveragePool] | type[MaxPool]) -> Handler:
    def handler(op: TfliteOp) -> Sequence[Value]:
        (value, axes), kernel = _map(op), _pair(op.info.options.window)
        stride: int | tuple[int, int] = _pair(op.info.options.stride)
        padding: Padding = "same" if op.same else UNPADDED
        node = kind(op.b.name(op.name), op.b.arranged(value, axes), kernel, stride, padding)
        return [op.activated(op.b.windowed(node, value, axes))]

    return handler


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


def _resize(op: TfliteOp) -> Sequence[Value]:
    (value, axes), (rows, columns) = _map(op), op.sizes(1)
    options = op.info.options
    mode: ResizeMode = "bilinear" if op.info.name == "RESIZE_BILINEAR" else "nearest"
    coordinates: Coordinates = "half_pixel" if options.half_pixel_centers else "asymmetric"
    if options.align_corners:
        coordinates = "align_corners"
    node = Resize(op.b.name(op.name), op.b.arranged(value, axes), (rows, columns), mode, coordinates)
    return [op.b.windowed(node, value, axes)]


def _blocks(kind: type[DepthToSpace] | type[SpaceToDepth]) -> Handler:
    def handler(op: TfliteOp) -> Sequence[Value]:
        value, axes = _map(op)
        node = kind(op.b.name(op.name), op.b.arranged(value, axes), op.option("BlockSize"))
        return [op.b.windowed(node, value, axes)]

    return handler


def _arg_max(op: TfliteOp) -> Sequence[Value]:
    value = op.value()
    return [arg_max(op.b, op.name, value, op.sizes(1)[0] % len(value.shape), keep=False)]


HANDLERS: Mapping[str, Handler] = {
    "ADD": _arithmetic(Add),
    "ARG_MAX": _arg_max,
    "AVERAGE_POOL_2D": _pool(AveragePool),
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _blocks(DepthToSpace),
    "DIV": _div,
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": _unary(HardSwish),
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _unary(Sigmoid),
    "MAXIMUM": _extremum(low=True),
    "MAX_POOL_2D": _pool(MaxPool),
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
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _blocks(SpaceToDepth),
    "SPLIT": _split,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _arithmetic(Sub),
    "TANH": _unary(Tanh),
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transposed_conv,
}
