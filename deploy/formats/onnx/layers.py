"""ONNX's form of the operators that compute: sums, products, means, pools and functions of single elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.formats.onnx.qdq import QdqModel
from nas.quant.integer_graph import (
    Arithmetic,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConv,
    QFloatLayer,
    QFullyConnected,
    QMaxPool,
    QMean,
    QMul,
    QSoftmax,
    QSub,
    QTransposedConv,
    Weighted,
    reads,
)
from nas.quant.integer_operators import (
    QHardSwish,
    QLeakyRelu,
    QPRelu,
    QRelu,
    QRelu6,
    QRequantize,
    QSigmoid,
    QTanh,
)
from nas.quant.integer_windows import cut_sides, window_of
from nas.quant.windows import pair

Layer = Weighted | QFloatLayer
Arranged = Callable[[NDArray[Any]], NDArray[Any]]


def _parameters(op: Layer, model: QdqModel, arranged: Arranged, axis: int = 0) -> list[str]:
    """Weight, whose results lie along `axis`, and bias; that of integers in float32(weight's scale x input's)."""
    name = op.name
    if isinstance(op, QFloatLayer):
        return [model.constant(name, "weight", arranged(op.weight)), model.constant(name, "bias", op.bias)]
    scale = op.weight_scale * np.float32(model.graph.tensors[op.x].scale)
    weight = model.stored(arranged(op.weight))
    return [
        model.dequantized(name, "weight", weight, (op.weight_scale, model.shift), axis),
        model.dequantized(name, "bias", op.bias, (scale, 0)),
    ]


def _integers(op: Layer) -> Weighted:
    """The layer, whose form it also has where it is computed in float."""
    return op.layer if isinstance(op, QFloatLayer) else op


def _activated(op: Layer | Arithmetic, y: str, model: QdqModel) -> str:
    """The activation's clamp, left out where the result's range clamps at 0 (and 6) by itself.

    A layer in float is saturated before: onnxruntime would quantize its weights.
    """
    name, activation = op.name, (op.layer if isinstance(op, QFloatLayer) else op).activation
    tensor = model.graph.tensors[name]
    if isinstance(op, QFloatLayer):
        y = _saturated(y, name, model)
    steps = round(float(np.float32(6) / np.float32(tensor.scale))) if activation == "relu6" else 255
    if activation == "none" or (tensor.zero_point == -128 and steps >= 255):
        return y
    return _relu(y, name, model, to_six=activation == "relu6")


def _relu(y: str, name: str, model: QdqModel, *, to_six: bool) -> str:
    if not to_six:
        return model.node("Relu", [y], name)
    bounds = [model.constant("", "zero", np.float32(0)), model.constant("", "six", np.float32(6))]
    return model.node("Clip", [y, *bounds], name)


# Layers with weights


def _conv(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, Layer)  # noqa: S101 (dispatched on the type)
    layer, x = _integers(op), model.graph.tensors[op.x]
    assert isinstance(layer, QConv)  # noqa: S101
    order = (3, 0, 1, 2) if layer.depthwise else (0, 3, 1, 2)  # to (O, I/groups, k, k)
    inputs = [model.real(op.x, "image"), *_parameters(op, model, lambda weight: weight.transpose(order))]
    groups = x.shape[2] // layer.weight.shape[order[1]]
    how = window(layer, x)
    y = model.node("Conv", inputs, op.name, **how, dilations=pair(layer.dilation), group=groups)
    model.quantize(op.name, _activated(op, y, model), "image")


def window(op: QConv | QAveragePool | QMaxPool, x: IntTensor) -> dict[str, Any]:
    """The attributes of the window of `op` over the map `x`; ONNX's pads are top, left, bottom, right."""
    of = window_of(op)
    top, bottom, left, right = of.pads((x.shape[0], x.shape[1]))
    return {"kernel_shape": pair(of.kernel), "strides": pair(of.stride), "pads": [top, left, bottom, right]}


def narrower(how: Mapping[str, Any]) -> bool:
    """Whether a window's padding is narrower than it is, as ONNX's poolings require."""
    return all(pad < kernel for pad, kernel in zip(how["pads"], how["kernel_shape"] * 2, strict=True))


def _transposed_conv(op: Operator, model: QdqModel) -> None:
    """What its result has beyond the full one is a larger kernel's, of zeros: ONNX cuts sides, and adds to none."""
    assert isinstance(op, Layer)  # noqa: S101
    layer, x = _integers(op), model.graph.tensors[op.x]
    assert isinstance(layer, QTransposedConv)  # noqa: S101
    top, bottom, left, right = cut_sides(layer, (x.shape[0], x.shape[1]))
    more = [(max(-before, 0), max(-after, 0)) for before, after in ((top, bottom), (left, right))]

    def arranged(weight: NDArray[Any]) -> NDArray[Any]:
        return np.pad(weight, ((0, 0), *more, (0, 0))).transpose((3, 0, 1, 2))  # to (I, O, k, k)

    inputs = [model.real(op.x, "image"), *_parameters(op, model, arranged, axis=1)]
    pads = [max(side, 0) for side in (top, left, bottom, right)]
    y = model.node("ConvTranspose", inputs, op.name, strides=pair(layer.stride), pads=pads)
    model.quantize(op.name, _activated(op, y, model), "image")


def _fully_connected(op: Operator, model: QdqModel) -> None:
    """Of rows: a tensor of another rank is reshaped to them and back, as integers."""
    assert isinstance(op, Layer)  # noqa: S101
    layer, order, shape = _integers(op), model.order_of([op.x]), model.shape(op.name, "file")
    inputs, rows = layer.weight.shape[1], prod(shape[:-1])
    x = model.real(op.x, order)
    if model.shape(op.x, order) != (rows, inputs):
        as_rows = model.integers64(op.name, "rows", (rows, inputs))
        x = model.rounded(op.x, model.node("Reshape", [x, as_rows], op.name))
    parameters = _parameters(op, model, lambda weight: weight)
    y = _activated(op, model.node("Gemm", [x, *parameters], op.name, transB=1), model)
    if len(shape) != 2:
        y = model.node("Reshape", [model.rounded(op.name, y), model.integers64(op.name, "shape", shape)], op.name)
    model.quantize(op.name, y, "file")


def _in_float(op: Operator, model: QdqModel) -> None:
    """As the layer, with real constants."""
    assert isinstance(op, QFloatLayer)  # noqa: S101
    EMITTERS[type(op.layer)](op, model)


# Sums and means


def _arithmetic(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QAdd | QSub | QMul)  # noqa: S101
    order = model.order_of(reads(op))
    y = model.node(type(op).__name__[1:], [model.real(op.a, order), model.real(op.b, order)], op.name)
    model.quantize(op.name, _activated(op, y, model), order)


def _mean(op: Operator, model: QdqModel) -> None:
    """Over rows and columns as GlobalAveragePool, for which runtimes have integer kernels."""
    assert isinstance(op, QMean)  # noqa: S101
    rank = model.graph.tensors[op.x].rank
    if rank == 4 and sorted(op.axes) == [-3, -2]:
        y = model.node("GlobalAveragePool", [model.real(op.x, "image")], op.name)
        if op.keep_dims:
            model.quantize(op.name, y, "image")
            return
        vector = [model.rounded(op.name, y), model.integers64(op.name, "shape", model.shape(op.name, "file"))]
        model.quantize(op.name, model.node("Reshape", vector, op.name), "file")
        return
    axes = model.integers64(op.name, "axes", (axis % rank for axis in op.axes))
    y = model.node("ReduceMean", [model.real(op.x, "file"), axes], op.name, keepdims=int(op.keep_dims))
    model.quantize(op.name, y, "file")


def _average_pool(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QAveragePool)  # noqa: S101
    y = model.node("AveragePool", [model.real(op.x, "image")], op.name, **window(op, model.graph.tensors[op.x]))
    model.quantize(op.name, y, "image")


def _max_pool(op: Operator, model: QdqModel) -> None:
    """Padding as wide as the window, which ONNX has not, comes before it."""
    assert isinstance(op, QMaxPool)  # noqa: S101
    x = model.graph.tensors[op.x]
    how, real = window(op, x), model.real(op.x, "image")
    if not narrower(how):
        top, left, bottom, right = how.pop("pads")
        pads = model.integers64(op.name, "pads", (0, 0, top, left, 0, 0, bottom, right))
        lowest = model.constant(op.name, "lowest", np.float32((-128 - x.zero_point) * x.scale))
        real = model.rounded(op.x, model.node("Pad", [real, pads, lowest], op.name))
    model.quantize(op.name, model.node("MaxPool", [real], op.name, **how), "image")


def _softmax(op: Operator, model: QdqModel) -> None:
    """With its saturation before it is quantized: onnxruntime's integer kernel gives 0 for 1 (its issue 29727)."""
    assert isinstance(op, QSoftmax)  # noqa: S101
    order = model.order_of([op.x])
    y = model.node("Softmax", [model.real(op.x, order)], op.name, axis=model.axis(op.x, -1, order))
    model.quantize(op.name, _saturated(y, op.name, model), order)


def _argmax(op: Operator, model: QdqModel) -> None:
    """On the integers, which order as the real values do; the class map has no channels."""
    assert isinstance(op, QArgMax)  # noqa: S101
    order = model.order_of([op.x])
    how = {"axis": model.axis(op.x, -1, order), "keepdims": 0, "select_last_index": 0}
    index = model.node("ArgMax", [model.integers(op.x, order)], op.name, **how)
    kind = model.helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))
    model.index(op.name, model.node("Cast", [index], op.name, to=kind), "file")


# Single elements


def _function(kind: str) -> Callable[[Operator, QdqModel], None]:
    """An operator without attributes."""

    def emit(op: Operator, model: QdqModel) -> None:
        (x,) = reads(op)
        order = model.order_of([x])
        model.quantize(op.name, model.node(kind, [model.real(x, order)], op.name), order)

    return emit


def _relu_alone(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QRelu | QRelu6)  # noqa: S101
    order = model.order_of([op.x])
    y = _relu(model.real(op.x, order), op.name, model, to_six=isinstance(op, QRelu6))
    model.quantize(op.name, y, order)


def _requantize(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QRequantize)  # noqa: S101
    order = model.order_of([op.x])
    model.quantize(op.name, model.real(op.x, order), order)


def _saturated(y: str, name: str, model: QdqModel) -> str:
    """At most what the integers of `name` can be. It keeps runtimes from fusing: unlike Clip, it is not taken out."""
    tensor = model.graph.tensors[name]
    highest = np.float32((127 - tensor.zero_point) * tensor.scale)
    return model.node("Min", [y, model.constant(name, "highest", highest)], name)


def _leaky_relu(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QLeakyRelu)  # noqa: S101
    order = model.order_of([op.x])
    model.quantize(op.name, model.node("LeakyRelu", [model.real(op.x, order)], op.name, alpha=op.alpha), order)


def _prelu(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QPRelu)  # noqa: S101
    order, scale = model.order_of([op.x]), np.array([op.slope_scale], np.float32)
    values = model.stored(op.slope.reshape((-1, 1, 1) if order == "image" else -1))
    slope = model.dequantized(op.name, "slope", values, (scale, op.slope_zero_point + model.shift))
    model.quantize(op.name, model.node("PRelu", [model.real(op.x, order), slope], op.name), order)


EMITTERS: Mapping[type, Callable[[Operator, QdqModel], None]] = {
    QConv: _conv,
    QTransposedConv: _transposed_conv,
    QFullyConnected: _fully_connected,
    QFloatLayer: _in_float,
    QAdd: _arithmetic,
    QSub: _arithmetic,
    QMul: _arithmetic,
    QMean: _mean,
    QAveragePool: _average_pool,
    QMaxPool: _max_pool,
    QSoftmax: _softmax,
    QArgMax: _argmax,
    QRequantize: _requantize,
    QRelu: _relu_alone,
    QRelu6: _relu_alone,
    QLeakyRelu: _leaky_relu,
    QPRelu: _prelu,
    QSigmoid: _function("Sigmoid"),
    QTanh: _function("Tanh"),
    QHardSwish: _function("HardSwish"),
}
