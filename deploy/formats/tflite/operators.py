"""What each integer operator becomes in TFLite: builtin code, version, options, extra constant tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from numpy.typing import NDArray

from nas.quant.arithmetic import Activations
from nas.quant.integer_graph import (
    IntegerGraph,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConcat,
    QConv,
    QFullyConnected,
    QMaxPool,
    QMean,
    QNearest,
    QPad,
    QReshape,
    QResize,
    QSoftmax,
    reads,
)

Codes = schema.BuiltinOperator
Options = schema.BuiltinOptions
ACTIVATIONS = {name: getattr(schema.ActivationFunctionType, name.upper()) for name in ("none", "relu", "relu6")}
INT4, INT8, UINT8, INT32 = (getattr(schema.TensorType, name) for name in ("INT4", "INT8", "UINT8", "INT32"))


@dataclass(frozen=True)
class Form:
    """How the same integers are written.

    Attributes:
        activations: uint8 shifts every feature map and weight by 128 (the VIP NPU's native type; weights per tensor).
        few_bits: int4 stores 4-bit weights two per byte, symmetric ones: asymmetric ones reach beyond INT4. LiteRT runs
            those convolutions on its builtin kernels, which do not round as XNNPACK's do: the integer simulation is
            then near, not exact.
        ends: of the graph's input and output; float adds QUANTIZE before and DEQUANTIZE after.
    """

    activations: Activations = "int8"
    few_bits: Literal["int8", "int4"] = "int8"
    ends: Literal["quantized", "float"] = "quantized"


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant tensor; quantized when it has a scale, along `axis` when that has several entries."""

    name: str
    data: NDArray[Any]
    scale: NDArray[np.float32] | None = None
    axis: int = 0
    bits: int = 8  # of quantized weights
    asymmetric: bool = False  # their integers are not about zero


@dataclass(frozen=True, eq=False)
class Emitted:
    """One TFLite operator: its inputs are the feature maps that it reads, then `constants`."""

    code: int
    version: int
    options_type: int
    options: Any
    constants: tuple[Constant, ...] = ()


def _conv(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QConv)  # noqa: S101 (dispatched on the type)
    options = schema.DepthwiseConv2DOptionsT() if op.depthwise else schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME
    options.strideW = options.strideH = op.stride
    options.dilationWFactor = options.dilationHFactor = op.dilation
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    if op.depthwise:
        options.depthMultiplier = 1
    bias_scale = op.weight_scale * np.float32(graph.tensors[op.x].scale)  # float32, as the runtime checks
    constants = (
        Constant(
            f"{op.name}/weight", op.weight, op.weight_scale, 3 if op.depthwise else 0, op.bits, op.offset is not None
        ),
        Constant(f"{op.name}/bias", op.bias, bias_scale),
    )
    if op.depthwise:
        return Emitted(Codes.DEPTHWISE_CONV_2D, 3, Options.DepthwiseConv2DOptions, options, constants)
    return Emitted(Codes.CONV_2D, 3, Options.Conv2DOptions, options, constants)


def _fully_connected(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QFullyConnected)  # noqa: S101 (dispatched on the type)
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    bias_scale = op.weight_scale * np.float32(graph.tensors[op.x].scale)
    constants = (
        Constant(f"{op.name}/weight", op.weight, op.weight_scale, 0, op.bits, op.offset is not None),
        Constant(f"{op.name}/bias", op.bias, bias_scale),
    )
    version = 4 if len(op.weight_scale) == 1 else 12  # 12 brought scales per channel
    return Emitted(Codes.FULLY_CONNECTED, version, Options.FullyConnectedOptions, options, constants)


def _pool(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QAveragePool | QMaxPool)  # noqa: S101 (dispatched on the type)
    largest = isinstance(op, QMaxPool)
    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.SAME if largest else schema.Padding.VALID
    options.strideW = options.strideH = op.stride
    options.filterWidth = options.filterHeight = op.kernel
    return Emitted(Codes.MAX_POOL_2D if largest else Codes.AVERAGE_POOL_2D, 2, Options.Pool2DOptions, options)


def _pad(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QPad)  # noqa: S101 (dispatched on the type)
    paddings = np.array([(0, 0), op.rows, op.columns, (0, 0)], np.int32)
    return Emitted(Codes.PAD, 2, Options.PadOptions, schema.PadOptionsT(), (Constant(f"{op.name}/paddings", paddings),))


def _reshape(op: Operator, graph: IntegerGraph) -> Emitted:
    shape = np.array(graph.tensors[op.name].file_shape, np.int32)
    options = schema.ReshapeOptionsT()
    options.newShape = shape
    return Emitted(Codes.RESHAPE, 1, Options.ReshapeOptions, options, (Constant(f"{op.name}/shape", shape),))


def _softmax(_op: Operator, _graph: IntegerGraph) -> Emitted:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    return Emitted(Codes.SOFTMAX, 2, Options.SoftmaxOptions, options)


def _add(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QAdd)  # noqa: S101 (dispatched on the type)
    options = schema.AddOptionsT()
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    return Emitted(Codes.ADD, 2, Options.AddOptions, options)


def _mean(op: Operator, _graph: IntegerGraph) -> Emitted:
    options = schema.ReducerOptionsT()
    options.keepDims = True
    axes = Constant(f"{op.name}/axes", np.array([1, 2], np.int32))
    return Emitted(Codes.MEAN, 2, Options.ReducerOptions, options, (axes,))


def _resize(op: Operator, graph: IntegerGraph) -> Emitted:
    options = schema.ResizeBilinearOptionsT()
    options.halfPixelCenters = True
    size = Constant(f"{op.name}/size", np.array(graph.tensors[op.name].shape[:2], np.int32))
    return Emitted(Codes.RESIZE_BILINEAR, 3, Options.ResizeBilinearOptions, options, (size,))


def _nearest(op: Operator, graph: IntegerGraph) -> Emitted:
    options = schema.ResizeNearestNeighborOptionsT()
    options.halfPixelCenters = True
    size = Constant(f"{op.name}/size", np.array(graph.tensors[op.name].shape[:2], np.int32))
    return Emitted(Codes.RESIZE_NEAREST_NEIGHBOR, 3, Options.ResizeNearestNeighborOptions, options, (size,))


def _concat(_op: Operator, _graph: IntegerGraph) -> Emitted:
    options = schema.ConcatenationOptionsT()
    options.axis = 3
    return Emitted(Codes.CONCATENATION, 2, Options.ConcatenationOptions, options)


def _argmax(op: Operator, _graph: IntegerGraph) -> Emitted:
    options = schema.ArgMaxOptionsT()
    options.outputType = INT32
    axis = Constant(f"{op.name}/axis", np.array(3, np.int32))
    return Emitted(Codes.ARG_MAX, 2, Options.ArgMaxOptions, options, (axis,))


EMITTERS: Mapping[type, Callable[[Operator, IntegerGraph], Emitted]] = {
    QConv: _conv,
    QFullyConnected: _fully_connected,
    QAveragePool: _pool,
    QMaxPool: _pool,
    QPad: _pad,
    QReshape: _reshape,
    QSoftmax: _softmax,
    QAdd: _add,
    QMean: _mean,
    QResize: _resize,
    QNearest: _nearest,
    QConcat: _concat,
    QArgMax: _argmax,
}


UINT8_VERSIONS = {Codes.RESIZE_BILINEAR: 3, Codes.RESIZE_NEAREST_NEIGHBOR: 3}  # others: 1
INT4_VERSION = 7  # of both convolutions


def emit(op: Operator, graph: IntegerGraph, form: Form = Form()) -> tuple[tuple[str, ...], Emitted]:
    """The feature maps that `op` reads, and its TFLite form."""
    emitted = EMITTERS[type(op)](op, graph)
    if form.activations == "uint8":
        emitted = replace(emitted, version=UINT8_VERSIONS.get(emitted.code, 1))
    elif form.few_bits == "int4" and isinstance(op, QConv) and op.bits == 4:
        emitted = replace(emitted, version=INT4_VERSION)
    return reads(op), emitted
