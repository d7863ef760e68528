"""Sums, differences and products of what is broadcast, whatever file they come from."""

from __future__ import annotations

import numpy as np

from deploy.formats.importers.builder import NodeBuilder, all_axes
from deploy.formats.importers.network import Axes, Operand, Unsupported, Value
from nas.quant.float_graph import Add, Clip, Mul, Sub

Kind = type[Add] | type[Sub] | type[Mul]


def combined(b: NodeBuilder, name: str, kind: Kind, first: Operand, second: Operand) -> Value:
    """`kind` of two operands, broadcast as numpy does; one of them is no constant."""
    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        raise Unsupported(f"{list(first.shape)} and {list(second.shape)} cannot be broadcast") from None
    operands = [_raised(operand, len(shape)) for operand in (first, second)]
    axes = _axes(b, operands, shape)
    x, y = (
        b.arranged(operand, axes) if isinstance(operand, Value) else b.constant(f"{name}/constant", operand, axes)
        for operand in operands
    )
    return b.value(kind(b.name(name), x, y), shape, axes)


def _raised(operand: Operand, rank: int) -> Operand:
    """With axes of size 1 in front, up to `rank`."""
    more = rank - len(operand.shape)
    if not isinstance(operand, Value):
        return operand.reshape((*[1] * more, *operand.shape))
    axes = tuple(None if axis is None else axis + more for axis in operand.axes)
    return Value(operand.tensor, (*[1] * more, *operand.shape), axes)


def _axes(b: NodeBuilder, operands: list[Operand], shape: tuple[int, ...]) -> Axes:
    """Where the result's axes are: as in an operand that has all of them, so that it need not be moved."""
    values = [operand for operand in operands if isinstance(operand, Value)]
    for value in sorted(values, key=lambda value: value.axes != b.map_axes):  # maps first
        if all(size == 1 or axis in value.axes for axis, size in enumerate(shape)):
            return value.axes
    return b.map_axes if len(shape) == 4 and shape[0] == 1 else all_axes(shape)


def clipped(b: NodeBuilder, name: str, value: Value, low: float, high: float) -> Value:
    """To `high` where the limits are the wrong way round, as ONNX and torch do."""
    return b.value(Clip(b.name(name), value.tensor, min(low, high), high), value.shape, value.axes)


def hard_sigmoid(b: NodeBuilder, name: str, value: Value, alpha: float, beta: float) -> Value:
    """clip(alpha x + beta, 0, 1), as RELU6(6 alpha x + 6 beta) / 6: TFLite has RELU6."""
    y = value
    if abs(6 * alpha - 1) > 1e-6:
        y = combined(b, f"{name}/scaled", Mul, y, np.array(6 * alpha, np.float32))
    y = combined(b, f"{name}/shifted", Add, y, np.array(6 * beta, np.float32))
    return combined(b, name, Mul, clipped(b, f"{name}/relu6", y, 0.0, 6.0), np.array(1 / 6, np.float32))
