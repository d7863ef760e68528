"""ONNX's form of the operators that only move integers, which runtimes give exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from deploy.formats.onnx.qdq import QdqModel
from nas.quant.integer_graph import IntegerGraph, Operator, reads
from nas.quant.integer_operators import (
    QConcat,
    QConstant,
    QDepthToSpace,
    QPad,
    QRequantize,
    QReshape,
    QSlice,
    QSpaceToDepth,
    QTranspose,
)

BEFORE_THE_FIRST = -(1 << 62)  # where a slice that goes backwards ends


def _pad(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QPad)  # noqa: S101 (dispatched on the type)
    x, order = model.graph.tensors[op.x], model.order_of([op.x])
    pads = np.zeros((2, 4), np.int64)
    for axis, sides in ((-3, op.rows), (-2, op.columns), (-1, op.channels)):
        pads[:, model.axis(op.x, axis, order)] = sides
    value = 0 if op.value is None else (op.value - x.zero_point) * np.float32(x.scale)
    parts = [model.constant(op.name, "pads", pads.reshape(-1)), model.constant(op.name, "value", np.float32(value))]
    model.move("Pad", (op.x, order), (op.name, order), *parts)


def _reshape(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QReshape)  # noqa: S101
    shape = model.integers64(op.name, "shape", model.shape(op.name, "file"))
    model.move("Reshape", (op.x, "file"), (op.name, "file"), shape)


def _transpose(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QTranspose)  # noqa: S101
    order = [0, *(model.axis(op.x, axis, "file") for axis in op.permutation)]
    model.move("Transpose", (op.x, "file"), (op.name, "file"), perm=order)


def without_requantizing(graph: IntegerGraph) -> IntegerGraph:
    """`graph` whose concatenations read what was requantized for them: QuantizeLinear, behind them, gives the scale."""
    sources = {op.name: op.x for op in graph.operators if isinstance(op, QRequantize)}
    operators = [
        replace(op, xs=tuple(sources.get(x, x) for x in op.xs)) if isinstance(op, QConcat) else op
        for op in graph.operators
    ]
    read = {x for op in operators for x in reads(op)} | set(graph.outputs)
    return replace(graph, operators=tuple(op for op in operators if op.name in read or op.name not in sources))


def _concat(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QConcat)  # noqa: S101
    order = model.order_of(op.xs)
    parts = [model.real(x, order) for x in op.xs]
    model.quantize(op.name, model.node("Concat", parts, op.name, axis=model.axis(op.name, op.axis, order)), order)


def _slice(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QSlice)  # noqa: S101
    order = model.order_of([op.x])
    ends = [first + count * stride for first, count, stride in zip(op.begin, op.size, op.strides, strict=True)]
    axes = [model.axis(op.x, axis, order) for axis in range(-len(op.begin), 0)]
    ends = [end if end >= 0 else BEFORE_THE_FIRST for end in ends]
    named = {"begin": op.begin, "end": ends, "axes": axes, "strides": op.strides}
    constants = [model.integers64(op.name, name, values) for name, values in named.items()]
    model.move("Slice", (op.x, order), (op.name, order), *constants)


def _depth_to_space(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QDepthToSpace)  # noqa: S101
    model.move("DepthToSpace", (op.x, "image"), (op.name, "image"), blocksize=op.block, mode="DCR")


def _space_to_depth(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QSpaceToDepth)  # noqa: S101
    model.move("SpaceToDepth", (op.x, "image"), (op.name, "image"), blocksize=op.block)


def _constant(_op: Operator, _model: QdqModel) -> None:
    """Written where it is read, in its reader's order."""


EMITTERS: Mapping[type, Callable[[Operator, QdqModel], None]] = {
    QPad: _pad,
    QReshape: _reshape,
    QTranspose: _transpose,
    QConcat: _concat,
    QSlice: _slice,
    QDepthToSpace: _depth_to_space,
    QSpaceToDepth: _space_to_depth,
    QConstant: _constant,
}
