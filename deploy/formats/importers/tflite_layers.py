"""TFLite's layers with weights, and what slides over or resizes a map, as float nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from deploy.formats.importers.network import Unsupported, Value
from deploy.formats.importers.products import convolution, product, transposed_convolution
from deploy.formats.importers.tflite_op import Handler, TfliteOp
from nas.quant.float_graph import AveragePool, MaxPool, Resize
from nas.quant.rearranging import Coordinates, ResizeMode
from nas.quant.windows import UNPADDED, Padding, Pads, Window, pair


def _window(op: TfliteOp, kernel: tuple[int, int]) -> Window:
    padding: Padding = "same" if op.same else UNPADDED
    return Window(kernel, _pair(op.info.options.stride), _pair(op.info.options.dilation), padding)


def _pair(given: tuple[int, int] | None) -> int | tuple[int, int]:
    rows, columns = given or (1, 1)
    return rows if rows == columns else (rows, columns)


def _conv(op: TfliteOp) -> Sequence[Value]:
    x, weight = op.map(), op.array(1).transpose(0, 3, 1, 2)
    window = _window(op, (weight.shape[2], weight.shape[3]))
    return [op.activated(convolution(op.b, op.name, x, (weight, op.optional_array(2)), window))]


def _depthwise(op: TfliteOp) -> Sequence[Value]:
    x, weight = op.map(), op.array(1).transpose(3, 0, 1, 2)
    window = _window(op, (weight.shape[2], weight.shape[3]))
    return [op.activated(convolution(op.b, op.name, x, (weight, op.optional_array(2)), window))]


def _transposed_conv(op: TfliteOp) -> Sequence[Value]:
    x, weight, wanted = op.map(2), op.array(1).transpose(0, 3, 1, 2), op.sizes(0)
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


def _pool(kind: type[AveragePool] | type[MaxPool]) -> Handler:
    def handler(op: TfliteOp) -> Sequence[Value]:
        (value, axes), kernel = op.map(), _pair(op.info.options.window)
        stride: int | tuple[int, int] = _pair(op.info.options.stride)
        padding: Padding = "same" if op.same else UNPADDED
        node = kind(op.b.name(op.name), op.b.arranged(value, axes), kernel, stride, padding)
        return [op.activated(op.b.windowed(node, value, axes))]

    return handler


def _resize(op: TfliteOp) -> Sequence[Value]:
    (value, axes), (rows, columns) = op.map(), op.sizes(1)
    options = op.info.options
    mode: ResizeMode = "bilinear" if op.info.name == "RESIZE_BILINEAR" else "nearest"
    coordinates: Coordinates = "half_pixel" if options.half_pixel_centers else "asymmetric"
    if options.align_corners:
        coordinates = "align_corners"
    node = Resize(op.b.name(op.name), op.b.arranged(value, axes), (rows, columns), mode, coordinates)
    return [op.b.windowed(node, value, axes)]


HANDLERS: Mapping[str, Handler] = {
    "AVERAGE_POOL_2D": _pool(AveragePool),
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _pool(MaxPool),
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "TRANSPOSE_CONV": _transposed_conv,
}
