"""ONNX's Resize, and what stands for it where its rounding would be a matter of the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploy.formats.onnx.qdq import QdqModel
from nas.quant.fixed_point import Int64
from nas.quant.integer_graph import Operator, QResize
from nas.quant.integer_resizing import nearest_index
from nas.quant.rearranging import Coordinates

NEAR = 2.0**-20  # of the map's size: what float32 positions may be off by


def is_certain(coordinates: Coordinates, size_in: int, size_out: int) -> bool:
    """Whether every runtime that computes positions in float32 takes TFLite's nearest elements along an axis.

    No position is so near to the next element that its rounding decides, or it is a whole number to all.
    """
    position, of = np.arange(size_out, dtype=np.int64), size_out
    if coordinates == "half_pixel":
        position, of = (2 * position + 1) * size_in, 2 * size_out
    elif coordinates == "asymmetric":
        position = position * size_in
    elif size_out > 1:  # align_corners, which rounds
        position, of = 2 * position * (size_in - 1) + size_out - 1, 2 * (size_out - 1)
    else:
        return True
    low, over = np.divmod(position, of)
    if not np.array_equal(low.clip(max=size_in - 1), nearest_index(coordinates, size_in, size_out)):
        return False
    apart = np.minimum(over, of - over) / of
    denominator = size_in // int(np.gcd(size_in, size_out))
    exact = coordinates == "align_corners" or denominator & (denominator - 1) == 0  # float32 holds size_out / size_in
    return bool(((apart > size_in * NEAR) | ((over == 0) & exact)).all())


def _resize(op: Operator, model: QdqModel) -> None:
    assert isinstance(op, QResize)  # noqa: S101 (dispatched on the type)
    x, y = model.graph.tensors[op.x], model.graph.tensors[op.name]
    sides = list(zip(x.shape[:2], y.shape[:2], strict=True))
    how = {"mode": "linear"}
    if op.mode == "nearest":
        if not all(is_certain(op.coordinates, *side) for side in sides):
            _taken(op, model, [nearest_index(op.coordinates, *side) for side in sides])
            return
        how = {"mode": "nearest", "nearest_mode": "floor" if op.coordinates == "asymmetric" else "round_prefer_ceil"}
    how["coordinate_transformation_mode"] = op.coordinates
    sizes = model.integers64(op.name, "sizes", model.shape(op.name, "image"))
    model.move("Resize", (op.x, "image"), (op.name, "image"), "", "", sizes, **how)


def _taken(op: QResize, model: QdqModel, indices: list[Int64]) -> None:
    """Rows, then columns, by their indices."""
    indexed = model.graph.tensors[op.x].dtype == "int32"
    y = (model.integers if indexed else model.real)(op.x, "image")
    for axis, index in enumerate(indices, start=2):
        y = model.node("Gather", [y, model.constant(op.name, str(axis), index)], op.name, axis=axis)
    (model.index if indexed else model.quantize)(op.name, y, "image")


EMITTERS: Mapping[type, Callable[[Operator, QdqModel], None]] = {QResize: _resize}
