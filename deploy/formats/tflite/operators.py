"""What each integer operator becomes in TFLite: builtin code, version, options, extra constant tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import ai_edge_litert.schema_py_generated as schema
import numpy as np

from deploy.formats.tflite import rearranging
from deploy.formats.tflite.emitted import ACTIVATIONS, Codes, Constant, Emitted, Options, integers
from nas.quant.arithmetic import Activations
from nas.quant.integer_graph import (
    IntegerGraph,
    Operator,
    QAdd,
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
from nas.quant.windows import Padding, pair

Ends = Literal["quantized", "float"]


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
    ends: Ends = "quantized"


def _padding(padding: Padding) -> int:
    """After `explicit_padding` a padding is SAME or nothing."""
    same: int = schema.Padding.SAME if padding == "same" else schema.Padding.VALID
    return same


def _parameters(op: Weighted, graph: IntegerGraph) -> tuple[Constant, Constant]:
    """Weight and bias."""
    axis = 3 if isinstance(op, QConv) and op.depthwise else 0
    bias_scale = op.weight_scale * np.float32(graph.tensors[op.x].scale)  # float32, as the runtime checks
    return (
        Constant(f"{op.name}/weight", op.weight, op.weight_scale, axis, op.bits, op.offset is not None),
        Constant(f"{op.name}/bias", op.bias, bias_scale),
    )


def _conv(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QConv)  # noqa: S101 (dispatched on the type)
    options = schema.DepthwiseConv2DOptionsT() if op.depthwise else schema.Conv2DOptionsT()
    options.padding = _padding(op.padding)
    options.strideH, options.strideW = pair(op.stride)
    options.dilationHFactor, options.dilationWFactor = pair(op.dilation)
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    constants, channels = _parameters(op, graph), graph.tensors[op.x].shape[2]
    if op.depthwise:
        options.depthMultiplier = op.weight.shape[3] // channels
        return Emitted(Codes.DEPTHWISE_CONV_2D, 3, Options.DepthwiseConv2DOptions, options, constants)
    version = 3 if op.weight.shape[3] == channels else 6  # 6 brought groups
    return Emitted(Codes.CONV_2D, version, Options.Conv2DOptions, options, constants)


def _transposed_conv(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QTransposedConv)  # noqa: S101
    options = schema.TransposeConvOptionsT()
    options.padding = _padding(op.padding)
    options.strideH, options.strideW = pair(op.stride)
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    weight, bias = _parameters(op, graph)
    shape = integers(f"{op.name}/shape", graph.tensors[op.name].file_shape)
    version = 3 if op.activation == "none" else 4  # 3 brought biases, 4 activations
    return Emitted(Codes.TRANSPOSE_CONV, version, Options.TransposeConvOptions, options, (bias,), (shape, weight))


def _fully_connected(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QFullyConnected)  # noqa: S101
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    options.keepNumDims = graph.tensors[op.name].rank > 2
    version = 5 if options.keepNumDims else 4
    if len(op.weight_scale) > 1:
        version = 12  # which brought scales per channel
    constants = _parameters(op, graph)
    return Emitted(Codes.FULLY_CONNECTED, version, Options.FullyConnectedOptions, options, constants)


def _pool(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QAveragePool | QMaxPool)  # noqa: S101
    options = schema.Pool2DOptionsT()
    options.padding = _padding(op.padding)
    options.strideH, options.strideW = pair(op.stride)
    options.filterHeight, options.filterWidth = pair(op.kernel)
    code = Codes.MAX_POOL_2D if isinstance(op, QMaxPool) else Codes.AVERAGE_POOL_2D
    return Emitted(code, 2, Options.Pool2DOptions, options)


def _softmax(_op: Operator, _graph: IntegerGraph) -> Emitted:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    return Emitted(Codes.SOFTMAX, 2, Options.SoftmaxOptions, options)


def _arithmetic(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QAdd | QSub | QMul)  # noqa: S101
    name = {QAdd: "Add", QSub: "Sub", QMul: "Mul"}[type(op)]
    options = getattr(schema, f"{name}OptionsT")()
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    return Emitted(getattr(Codes, name.upper()), 2, getattr(Options, f"{name}Options"), options)


def _mean(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QMean)  # noqa: S101
    options = schema.ReducerOptionsT()
    options.keepDims = op.keep_dims
    axes = integers(f"{op.name}/axes", [axis % graph.tensors[op.x].rank for axis in op.axes])
    return Emitted(Codes.MEAN, 2, Options.ReducerOptions, options, (axes,))


def _in_float(op: Operator, graph: IntegerGraph) -> Emitted:
    """As the layer, with real constants."""
    assert isinstance(op, QFloatLayer)  # noqa: S101
    emitted, constants = EMITTERS[type(op.layer)](op.layer, graph), {"weight": op.weight, "bias": op.bias}
    real = {f"{op.name}/{part}": Constant(f"{op.name}/{part}", values) for part, values in constants.items()}
    before, after = (tuple(real.get(c.name, c) for c in part) for part in (emitted.before, emitted.constants))
    return replace(emitted, before=before, constants=after)


EMITTERS: Mapping[type, Callable[[Operator, IntegerGraph], Emitted]] = {
    QConv: _conv,
    QTransposedConv: _transposed_conv,
    QFullyConnected: _fully_connected,
    QFloatLayer: _in_float,
    QAveragePool: _pool,
    QMaxPool: _pool,
    QSoftmax: _softmax,
    QAdd: _arithmetic,
    QSub: _arithmetic,
    QMul: _arithmetic,
    QMean: _mean,
    **rearranging.EMITTERS,
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
