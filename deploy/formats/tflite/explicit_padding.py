"""Paddings that TFLite's operators do not have become operators of their own; the integers stay the same.

Its windows are padded as SAME or not at all (VALID).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nas.errors import QuantizationError
from nas.quant import windows
from nas.quant.integer_graph import (
    UNPADDED,
    IntegerGraph,
    IntTensor,
    Operator,
    Pair,
    QAveragePool,
    QConv,
    QMaxPool,
    QTransposedConv,
    pair,
)
from nas.quant.integer_operators import QPad, QSlice


def with_paddings(graph: IntegerGraph) -> IntegerGraph:
    """`graph` with every padding SAME or none: a PAD before a convolution or pooling, a SLICE after a transposed one.

    Raises `QuantizationError` naming an average pooling, whose padding is not counted and so cannot be a PAD.
    """
    if all(getattr(op, "padding", UNPADDED) in ("same", UNPADDED) for op in graph.operators):
        return graph
    tensors = dict(graph.tensors)
    operators = tuple(part for op in graph.operators for part in _parts(op, tensors))
    return IntegerGraph(tensors, operators, graph.input)


def _parts(op: Operator, tensors: dict[str, IntTensor]) -> Iterator[Operator]:
    """The operators that are `op`, its last one by that name; a tensor between them goes into `tensors`."""
    if not isinstance(op, QConv | QTransposedConv | QAveragePool | QMaxPool) or op.padding in ("same", UNPADDED):
        yield op
        return
    x = tensors[op.x]
    size, stride = (x.shape[0], x.shape[1]), pair(op.stride)
    if isinstance(op, QTransposedConv):
        yield from _cut(op, size, tensors)
        return
    kernel = windows.kernel_of(op) if isinstance(op, QConv) else pair(op.kernel)
    dilation = pair(op.dilation) if isinstance(op, QConv) else (1, 1)
    top, bottom, left, right = op.padding
    if op.padding == windows.same_sides(size, kernel, stride, dilation):
        yield replace(op, padding="same")
        return
    if isinstance(op, QAveragePool):
        raise QuantizationError(
            f"average pooling '{op.name}' pads {top}, {bottom} rows and {left}, {right} columns, which TFLite cannot "
            "leave out of the mean: pad before it, or multiply by the share of each window that is counted"
        )
    padded = f"{op.name}/padded"
    tensors[padded] = replace(x, name=padded, shape=(size[0] + top + bottom, size[1] + left + right, x.shape[2]))
    value = -128 if isinstance(op, QMaxPool) else None  # never the largest
    yield QPad(padded, op.x, (top, bottom), (left, right), value=value)
    yield replace(op, x=padded, padding=UNPADDED)


def _cut(op: QTransposedConv, size: Pair, tensors: dict[str, IntTensor]) -> Iterator[Operator]:
    kernel, stride, y = windows.kernel_of(op), pair(op.stride), tensors[op.name]
    if op.padding == windows.transposed_sides("same", size, kernel, stride):
        yield replace(op, padding="same")
        return
    full = f"{op.name}/full"
    height, width = ((n - 1) * s + k for n, s, k in zip(size, stride, kernel, strict=True))
    tensors[full] = replace(y, name=full, shape=(height, width, y.shape[2]))
    yield replace(op, name=full, padding=UNPADDED)
    yield QSlice(op.name, full, (0, op.padding[0], op.padding[2], 0), (1, *y.shape), (1, 1, 1, 1))
