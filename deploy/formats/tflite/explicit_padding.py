"""Paddings that TFLite's operators do not have become operators of their own; the integers stay the same.

Its windows are padded as SAME or not at all (VALID).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nas.errors import QuantizationError
from nas.quant.integer_graph import (
    IntegerGraph,
    IntTensor,
    Operator,
    QAveragePool,
    QConv,
    QFloatLayer,
    QMaxPool,
    QTransposedConv,
    Weighted,
)
from nas.quant.integer_operators import QPad, QSlice
from nas.quant.integer_windows import cut_sides, kernel_of, window_of
from nas.quant.windows import UNPADDED, pair


def with_paddings(graph: IntegerGraph) -> IntegerGraph:
    """`graph` with every padding SAME or none: a PAD before a convolution or pooling, a SLICE after a transposed one.

    Raises `QuantizationError` naming an average pooling, whose padding is not counted and so cannot be a PAD.
    """
    tensors = dict(graph.tensors)
    operators = tuple(part for op in graph.operators for part in _parts(op, tensors))
    return replace(graph, tensors=tensors, operators=operators)


def _parts(op: Operator, tensors: dict[str, IntTensor]) -> Iterator[Operator]:
    """The operators that are `op`, its last one by that name; a tensor between them goes into `tensors`."""
    if isinstance(op, QFloatLayer):
        for part in _parts(op.layer, tensors):
            yield replace(op, layer=part) if isinstance(part, Weighted) else part
        return
    if isinstance(op, QTransposedConv):
        yield from _transposed(op, tensors)
        return
    if not isinstance(op, QConv | QAveragePool | QMaxPool) or isinstance(op.padding, str) or op.padding == UNPADDED:
        yield op
        return
    x = tensors[op.x]
    height, width, channels = x.shape
    top, bottom, left, right = op.padding
    if op.padding == replace(window_of(op), padding="same").pads((height, width)):
        yield replace(op, padding="same")
        return
    if isinstance(op, QAveragePool):
        raise QuantizationError(
            f"average pooling '{op.name}' pads {top}, {bottom} rows and {left}, {right} columns, which TFLite cannot "
            "leave out of the mean: pad before it, or multiply by the share of each window that is counted"
        )
    padded = f"{op.name}/padded"
    tensors[padded] = replace(x, name=padded, shape=(height + top + bottom, width + left + right, channels))
    value = -128 if isinstance(op, QMaxPool) else None  # never the largest
    yield QPad(padded, op.x, (top, bottom), (left, right), value=value)
    yield replace(op, x=padded, padding=UNPADDED)


def _transposed(op: QTransposedConv, tensors: dict[str, IntTensor]) -> Iterator[Operator]:
    """A transposed convolution, then what cuts its result."""
    (height, width, _), y, (rows, columns) = tensors[op.x].shape, tensors[op.name], pair(op.stride)
    if isinstance(op.padding, str) or op.padding == cut_sides(replace(op, padding="same"), (height, width)):
        # XNNPACK leaves a kernel below the stride to kernels that round otherwise: zeros fill it up
        more = [(0, max(s - k, 0)) for s, k in zip((rows, columns), kernel_of(op), strict=True)]
        weight = np.pad(op.weight, ((0, 0), *more, (0, 0))) if any(map(any, more)) else op.weight
        yield replace(op, weight=weight, padding="same")
        return
    if op.padding == UNPADDED:
        yield op
        return
    full, (top, bottom, left, right) = f"{op.name}/full", op.padding
    size = (y.shape[0] + top + max(bottom, 0), y.shape[1] + left + max(right, 0))
    tensors[full] = replace(y, name=full, shape=(*size, y.shape[2]))
    yield replace(op, name=full, padding=UNPADDED)
    yield QSlice(op.name, full, (top, left, 0), y.shape, (1, 1, 1))
