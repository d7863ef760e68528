"""Write an `IntegerGraph` as a QDQ ONNX model: a second opinion on the same integers, in onnxruntime.

Between DequantizeLinear and QuantizeLinear are float operators in ONNX's layout (N, C, H, W); runtimes fuse the
three into integer kernels. The graph's input and output are the .tflite file's: int8 (1, H, W, C) in, int8 or int32
out, so that one golden pair serves both files. The bytes are a pure function of the graph and the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import UsageError
from nas.errors import QuantizationError
from nas.quant.integer_graph import (
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConv,
    QFullyConnected,
    QMaxPool,
    QMean,
    QResize,
    QSoftmax,
    Weighted,
    reads,
)
from nas.quant.integer_operators import QConcat, QPad, QReshape
from nas.quant.integer_windows import window_of
from nas.quant.windows import pair

OPSET, IR_VERSION = 21, 10  # both of ONNX 1.16: old enough for runtimes on boards, and all that is needed
METADATA_NAME = "hilnas"
NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


class _Graph:
    """The model under construction. A feature map `x` is `x/int8` and, once some operator asks, `x/real`."""

    def __init__(self, graph: IntegerGraph) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.graph = graph
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.dequantized: set[str] = set()

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, data: NDArray[Any] | np.generic) -> str:
        if name not in self.constants:
            self.constants[name] = self.numpy_helper.from_array(np.ascontiguousarray(data).reshape(data.shape), name)
        return name

    def parameters(self, tensor: IntTensor) -> list[str]:
        scale = self.constant(f"{tensor.name}/scale", np.float32(tensor.scale))
        return [scale, self.constant(f"{tensor.name}/zero_point", np.int8(tensor.zero_point))]

    def real(self, name: str) -> str:
        """The dequantized feature map `name`."""
        if name not in self.dequantized:
            self.dequantized.add(name)
            parameters = self.parameters(self.graph.tensors[name])
            self.node("DequantizeLinear", [f"{name}/int8", *parameters], f"{name}/real")
        return f"{name}/real"

    def quantized(self, name: str, real: str) -> str:
        parameters = self.parameters(self.graph.tensors[name])
        return self.node("QuantizeLinear", [real, *parameters], f"{name}/int8")

    def integers(self, name: str, data: NDArray[np.int8] | NDArray[np.int32], scale: NDArray[np.float32]) -> str:
        """Symmetric constant integers, dequantized with one scale, or one for each entry of the first axis."""
        scale = scale.reshape(()) if len(scale) == 1 else scale
        parts = [self.constant(name, data), self.constant(f"{name}/scale", scale)]
        parts.append(self.constant(f"{name}/zero_point", np.zeros(scale.shape, data.dtype)))
        return self.node("DequantizeLinear", parts, f"{name}/real", **({"axis": 0} if scale.shape else {}))

    def weights(self, op: Weighted, weight: NDArray[np.int8]) -> list[str]:
        """Weight (O, ...) and bias, both dequantized; the bias in float32(weight's scale x input's), as TFLite's."""
        scale = op.weight_scale * np.float32(self.graph.tensors[op.x].scale)
        named = (("weight", weight, op.weight_scale), ("bias", op.bias, scale))
        return [self.integers(f"{op.name}/{part}", data, scales) for part, data, scales in named]

    def activated(self, op: Weighted | QAdd, y: str) -> str:
        """The activation's clamp, left out where the output's int8 range clamps at 0 (and 6) by itself."""
        tensor = self.graph.tensors[op.name]
        steps = round(float(np.float32(6) / np.float32(tensor.scale))) if op.activation == "relu6" else 255
        if op.activation == "none" or (tensor.zero_point == -128 and steps >= 255):
            return y
        if op.activation == "relu":
            return self.node("Relu", [y], f"{op.name}/clipped")
        bounds = [self.constant("zero", np.float32(0)), self.constant("six", np.float32(6))]
        return self.node("Clip", [y, *bounds], f"{op.name}/clipped")


def _shape(tensor: IntTensor) -> tuple[int, ...]:
    """As the feature map is inside the model."""
    height, width, channels = tensor.shape
    return (1, channels) if tensor.rank == 2 else (1, channels, height, width)


def _window(op: QConv | QAveragePool | QMaxPool, x: IntTensor) -> dict[str, Any]:
    """The attributes of the window of `op` over `x`; ONNX's pads are top, left, bottom, right."""
    window = window_of(op)
    top, bottom, left, right = window.pads((x.shape[0], x.shape[1]))
    return {"kernel_shape": pair(window.kernel), "strides": pair(window.stride), "pads": [top, left, bottom, right]}


def _conv(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QConv)  # noqa: S101 (dispatched on the type)
    x = g.graph.tensors[op.x]
    weight = op.weight.transpose((3, 0, 1, 2) if op.depthwise else (0, 3, 1, 2))  # (O, I/groups, k, k)
    y = g.node(
        "Conv",
        [g.real(op.x), *g.weights(op, weight)],
        f"{op.name}/convolved",
        **_window(op, x),
        dilations=pair(op.dilation),
        group=x.shape[2] // weight.shape[1],
    )
    return g.quantized(op.name, g.activated(op, y))


def _fully_connected(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QFullyConnected)  # noqa: S101
    x = g.graph.tensors[op.x]
    vector = g.real(op.x)
    if x.rank == 4:
        vector = g.node("Flatten", [vector], f"{op.name}/vector", axis=1)
    y = g.activated(op, g.node("Gemm", [vector, *g.weights(op, op.weight)], f"{op.name}/multiplied", transB=1))
    if g.graph.tensors[op.name].rank == 4:
        shape = g.constant(f"{op.name}/shape", np.array(_shape(g.graph.tensors[op.name]), np.int64))
        y = g.node("Reshape", [y, shape], f"{op.name}/map")
    return g.quantized(op.name, y)


def _add(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QAdd)  # noqa: S101
    return g.quantized(op.name, g.activated(op, g.node("Add", [g.real(op.a), g.real(op.b)], f"{op.name}/sum")))


def _mean(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QMean)  # noqa: S101
    return g.quantized(op.name, g.node("GlobalAveragePool", [g.real(op.x)], f"{op.name}/mean"))


def _average_pool(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QAveragePool)  # noqa: S101
    window = _window(op, g.graph.tensors[op.x])
    return g.quantized(op.name, g.node("AveragePool", [g.real(op.x)], f"{op.name}/pooled", **window))


def _max_pool(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QMaxPool)  # noqa: S101
    window = _window(op, g.graph.tensors[op.x])
    return g.quantized(op.name, g.node("MaxPool", [g.real(op.x)], f"{op.name}/pooled", **window))


def _pad(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QPad)  # noqa: S101
    (top, bottom), (left, right) = op.rows, op.columns
    pads = g.constant(f"{op.name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    return g.quantized(op.name, g.node("Pad", [g.real(op.x), pads], f"{op.name}/padded"))


def _reshape(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QReshape)  # noqa: S101
    if g.graph.tensors[op.name].rank == 4:
        return g.node(
            "Unsqueeze", [f"{op.x}/int32", g.constant("channels", np.array([1], np.int64))], f"{op.name}/int32"
        )
    x = f"{op.x}/int8"
    if g.graph.tensors[op.x].rank == 4:  # the deployed order is (H, W, C)
        x = g.node("Transpose", [x], f"{op.name}/nhwc", perm=NHWC)
    return g.node("Flatten", [x], f"{op.name}/int8", axis=1)


def _softmax(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QSoftmax)  # noqa: S101
    return g.quantized(op.name, g.node("Softmax", [g.real(op.x)], f"{op.name}/probability", axis=1))


def _resize(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QResize)  # noqa: S101
    sizes = g.constant(f"{op.name}/sizes", np.array(_shape(g.graph.tensors[op.name]), np.int64))
    if g.graph.tensors[op.name].dtype == "int32":
        how = {"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
        return g.node("Resize", [f"{op.x}/int32", "", "", sizes], f"{op.name}/int32", **how)
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return g.quantized(op.name, g.node("Resize", [g.real(op.x), "", "", sizes], f"{op.name}/resized", **how))


def _concat(op: Operator, g: _Graph) -> str:
    assert isinstance(op, QConcat)  # noqa: S101
    return g.quantized(op.name, g.node("Concat", [g.real(x) for x in op.xs], f"{op.name}/joined", axis=1))


def _argmax(op: Operator, g: _Graph) -> str:
    """On the integers, which order as the real values do; the class map has no channels."""
    assert isinstance(op, QArgMax)  # noqa: S101
    how = {"axis": 1, "keepdims": 0, "select_last_index": 0}
    index = g.node("ArgMax", [f"{op.x}/int8"], f"{op.name}/int64", **how)
    return g.node("Cast", [index], f"{op.name}/int32", to=g.helper.np_dtype_to_tensor_dtype(np.dtype(np.int32)))


EMITTERS: Mapping[type, Callable[[Operator, _Graph], str]] = {
    QConv: _conv,
    QFullyConnected: _fully_connected,
    QAveragePool: _average_pool,
    QMaxPool: _max_pool,
    QPad: _pad,
    QReshape: _reshape,
    QSoftmax: _softmax,
    QAdd: _add,
    QMean: _mean,
    QResize: _resize,
    QConcat: _concat,
    QArgMax: _argmax,
}


def _check(op: Operator, graph: IntegerGraph) -> None:
    """`QuantizationError` naming an operator that search spaces do not have and nothing here writes."""
    match op:
        case QMean():
            written = op == QMean(op.name, op.x)
        case QResize():
            classes = graph.tensors[op.name].dtype == "int32"
            written = op == QResize(op.name, op.x, "nearest" if classes else "bilinear")
        case QPad():
            written = op.channels == (0, 0) and op.value is None
        case QConcat():
            written = op.axis == -1
        case QReshape():
            written = graph.tensors[op.name].rank == 2 or graph.tensors[op.name].dtype == "int32"
        case _:
            written = type(op) in EMITTERS
    if not written or any(len(graph.tensors[name].shape) != 3 for name in (op.name, *reads(op))):
        raise QuantizationError(
            f"'{op.name}': this form of {type(op).__name__[1:]} cannot be written as ONNX: take .tflite"
        )


def _end(g: _Graph, tensor: IntTensor) -> Any:
    """The declaration of an input or output, shaped as in the .tflite file."""
    kind = g.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return g.helper.make_tensor_value_info(tensor.name, kind, tensor.file_shape)


def to_onnx(graph: IntegerGraph, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The ONNX file of `graph`: input and output NHWC, batch 1; `metadata` goes in as JSON under 'hilnas'.

    Raises `UsageError` where the package onnx is not installed, `QuantizationError` naming an operator that it has not.
    """
    for op in graph.operators:
        _check(op, graph)
    if len(graph.outputs) > 1:
        raise QuantizationError(f"outputs {', '.join(graph.outputs)}: only one can be written as ONNX; cut the network")
    try:
        g = _Graph(graph)
    except ImportError:
        raise UsageError("writing ONNX needs the package onnx: pip install 'hilnas[onnx]'") from None
    source, sink = graph.tensors[graph.input], graph.tensors[graph.output]
    entry = {"perm": NCHW} if source.rank == 4 else {}
    g.node("Transpose" if entry else "Identity", [source.name], f"{source.name}/int8", **entry)
    for op in graph.operators:
        result = EMITTERS[type(op)](op, g)
    leave = {"perm": NHWC} if sink.rank == 4 else {}
    g.node("Transpose" if leave else "Identity", [result], sink.name, **leave)

    constants = list(g.constants.values())
    body = g.helper.make_graph(g.nodes, "main", [_end(g, source)], [_end(g, sink)], constants)
    opsets = [g.helper.make_opsetid("", OPSET)]
    model = g.helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hilnas")
    g.helper.set_model_props(model, {METADATA_NAME: json.dumps(dict(metadata or {}), sort_keys=True)})
    content: bytes = model.SerializeToString(deterministic=True)
    return content
