"""TFLite's form of the operators that only move integers, and of those of single integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ai_edge_litert.schema_py_generated as schema
import numpy as np

from deploy.formats.tflite.emitted import INT32, Codes, Constant, Emitted, Options, integers
from nas.errors import QuantizationError
from nas.quant.integer_graph import IntegerGraph, Operator, QArgMax, QResize
from nas.quant.integer_operators import (
    QConcat,
    QDepthToSpace,
    QHardSwish,
    QLeakyRelu,
    QPad,
    QPRelu,
    QRelu,
    QRelu6,
    QRequantize,
    QReshape,
    QSigmoid,
    QSlice,
    QSpaceToDepth,
    QTanh,
    QTranspose,
)


def _pad(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QPad)  # noqa: S101 (dispatched on the type)
    paddings = integers(f"{op.name}/paddings", [(0, 0), op.rows, op.columns, op.channels])
    if op.value is None:
        return Emitted(Codes.PAD, 2, Options.PadOptions, schema.PadOptionsT(), (paddings,))
    x = graph.tensors[op.x]
    value = np.full(1, op.value, np.int8)
    filling = Constant(f"{op.name}/value", value, np.array([x.scale], np.float32), zero_point=x.zero_point)
    return Emitted(Codes.PADV2, 2, Options.PadV2Options, schema.PadV2OptionsT(), (paddings, filling))


def _reshape(op: Operator, graph: IntegerGraph) -> Emitted:
    shape = np.array(graph.tensors[op.name].file_shape, np.int32)
    options = schema.ReshapeOptionsT()
    options.newShape = shape
    return Emitted(Codes.RESHAPE, 1, Options.ReshapeOptions, options, (Constant(f"{op.name}/shape", shape),))


def _transpose(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QTranspose)  # noqa: S101
    rank = graph.tensors[op.x].rank
    order = integers(f"{op.name}/permutation", [0, *(axis % rank for axis in op.permutation)])
    return Emitted(Codes.TRANSPOSE, 2, Options.TransposeOptions, schema.TransposeOptionsT(), (order,))


def _concat(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QConcat)  # noqa: S101
    options = schema.ConcatenationOptionsT()
    options.axis = op.axis % graph.tensors[op.name].rank
    return Emitted(Codes.CONCATENATION, 2, Options.ConcatenationOptions, options)


def _slice(op: Operator, graph: IntegerGraph) -> Emitted:
    """SLICE, or where some are left out, STRIDED_SLICE."""
    assert isinstance(op, QSlice)  # noqa: S101
    if min(op.strides) < 1:
        raise QuantizationError(f"'{op.name}' reverses an axis, for which there is no integer operator")
    whole = graph.tensors[op.x].file_shape[: -len(op.begin)]  # the batch, and axes before those that are sliced
    ones = [1] * len(whole)
    begin = integers(f"{op.name}/begin", [*(0 for _ in whole), *op.begin])
    if set(op.strides) == {1}:
        size = integers(f"{op.name}/size", [*whole, *op.size])
        return Emitted(Codes.SLICE, 2, Options.SliceOptions, schema.SliceOptionsT(), (begin, size))
    ends = [b + (n - 1) * s + 1 for b, n, s in zip(op.begin, op.size, op.strides, strict=True)]
    parts = (begin, integers(f"{op.name}/end", [*whole, *ends]), integers(f"{op.name}/strides", [*ones, *op.strides]))
    return Emitted(Codes.STRIDED_SLICE, 2, Options.StridedSliceOptions, schema.StridedSliceOptionsT(), parts)


def _depth_to_space(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QDepthToSpace)  # noqa: S101
    options = schema.DepthToSpaceOptionsT()
    options.blockSize = op.block
    return Emitted(Codes.DEPTH_TO_SPACE, 1, Options.DepthToSpaceOptions, options)


def _space_to_depth(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QSpaceToDepth)  # noqa: S101
    options = schema.SpaceToDepthOptionsT()
    options.blockSize = op.block
    return Emitted(Codes.SPACE_TO_DEPTH, 2, Options.SpaceToDepthOptions, options)


def _resize(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QResize)  # noqa: S101
    bilinear = op.mode == "bilinear"
    options = schema.ResizeBilinearOptionsT() if bilinear else schema.ResizeNearestNeighborOptionsT()
    options.halfPixelCenters = op.coordinates == "half_pixel"
    options.alignCorners = op.coordinates == "align_corners"
    size = integers(f"{op.name}/size", graph.tensors[op.name].shape[:2])
    if bilinear:
        return Emitted(Codes.RESIZE_BILINEAR, 3, Options.ResizeBilinearOptions, options, (size,))
    return Emitted(Codes.RESIZE_NEAREST_NEIGHBOR, 3, Options.ResizeNearestNeighborOptions, options, (size,))


def _argmax(op: Operator, graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QArgMax)  # noqa: S101
    options = schema.ArgMaxOptionsT()
    options.outputType = INT32
    axis = integers(f"{op.name}/axis", graph.tensors[op.x].rank - 1)
    return Emitted(Codes.ARG_MAX, 2, Options.ArgMaxOptions, options, (axis,))


def _leaky_relu(op: Operator, _graph: IntegerGraph) -> Emitted:
    assert isinstance(op, QLeakyRelu)  # noqa: S101
    options = schema.LeakyReluOptionsT()
    options.alpha = op.alpha
    return Emitted(Codes.LEAKY_RELU, 2, Options.LeakyReluOptions, options)


def _prelu(op: Operator, graph: IntegerGraph) -> Emitted:
    """The slopes have one rank less than the map: the batch has none."""
    assert isinstance(op, QPRelu)  # noqa: S101
    slope = op.slope.reshape(*[1] * (graph.tensors[op.x].rank - 2), -1)
    scale = np.array([op.slope_scale], np.float32)
    constant = Constant(f"{op.name}/slope", slope, scale, zero_point=op.slope_zero_point)
    return Emitted(Codes.PRELU, 1, Options.NONE, None, (constant,))


def _plain(name: str, version: int) -> Callable[[Operator, IntegerGraph], Emitted]:
    """An operator without options."""
    return lambda _op, _graph: Emitted(getattr(Codes, name), version, Options.NONE, None)


EMITTERS: Mapping[type, Callable[[Operator, IntegerGraph], Emitted]] = {
    QPad: _pad,
    QReshape: _reshape,
    QTranspose: _transpose,
    QConcat: _concat,
    QSlice: _slice,
    QDepthToSpace: _depth_to_space,
    QSpaceToDepth: _space_to_depth,
    QResize: _resize,
    QArgMax: _argmax,
    QRequantize: _plain("QUANTIZE", 2),
    QRelu: _plain("RELU", 2),
    QRelu6: _plain("RELU6", 2),
    QLeakyRelu: _leaky_relu,
    QPRelu: _prelu,
    QSigmoid: _plain("LOGISTIC", 2),
    QTanh: _plain("TANH", 2),
    QHardSwish: _plain("HARD_SWISH", 1),
}
