"""Operators that choose, move or reduce elements, as float nodes, whatever file they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploy.formats.importers.builder import NodeBuilder, all_axes
from deploy.formats.importers.network import Axes, Operand, Unsupported, Value
from nas.quant.float_graph import ArgMax, Concat, Mean, Pad, Slice, Softmax

Around = Mapping[int, tuple[int, int]]
"""How much is added before and after, by axis; below zero it is cut off."""


def with_axis(b: NodeBuilder, value: Value, axis: int) -> Axes:
    """Where `value` has its axes, one for `axis` among them although its size may be 1."""
    if axis in value.axes:
        return value.axes
    if len(value.shape) == 4 and value.shape[0] == 1 and axis:
        return b.map_axes
    return all_axes(value.shape) if axis else tuple(range(len(value.shape)))


def mean(b: NodeBuilder, name: str, value: Value, over: Sequence[int]) -> Value:
    """Over these axes of the file, which stay with size 1."""
    shape = tuple(1 if axis in over else size for axis, size in enumerate(value.shape))
    places = [i for i, axis in enumerate(value.axes) if axis is not None and axis in over and value.shape[axis] > 1]
    if not places:
        return value
    return b.value(Mean(b.name(name), value.tensor, tuple(i - len(value.axes) for i in places)), shape, value.axes)


def softmax(b: NodeBuilder, name: str, value: Value, axis: int) -> Value:
    axes = value.axes
    if axes[-1:] != (axis,):
        axes = (*(held for held in axes if held not in (axis, None)), axis)
    return b.value(Softmax(b.name(name), b.arranged(value, axes)), value.shape, axes)


def joined(b: NodeBuilder, name: str, operands: Sequence[Operand], axis: int) -> Value:
    """One behind the other along `axis`; one of them at least is no constant."""
    first = max((o for o in operands if isinstance(o, Value)), key=lambda o: sum(n > 1 for n in o.shape))
    if len({(*o.shape[:axis], *o.shape[axis + 1 :]) for o in operands}) > 1:
        raise Unsupported(f"it joins {', '.join(str(list(o.shape)) for o in operands)} along axis {axis}")
    axes = with_axis(b, first, axis)
    read = tuple(
        b.arranged(o, axes) if isinstance(o, Value) else b.constant(f"{name}/constant", o, axes) for o in operands
    )
    shape = [sum(o.shape[i] for o in operands) if i == axis else n for i, n in enumerate(first.shape)]
    return b.value(Concat(b.name(name), read, axes.index(axis) - len(axes)), shape, axes)


def sliced(b: NodeBuilder, name: str, value: Value, taken: Mapping[int, range]) -> Value:
    """These elements of some axes, all of the others."""
    parts = {axis: part for axis, part in taken.items() if part != range(value.shape[axis])}
    if not all(len(part) for part in parts.values()):
        raise Unsupported("nothing is left of its input")
    if not parts:
        return value
    shape = tuple(len(parts[i]) if i in parts else n for i, n in enumerate(value.shape))
    along = [range(1) if axis is None else parts.get(axis, range(value.shape[axis])) for axis in value.axes]
    begin, size, strides = zip(*((part.start, len(part), part.step) for part in along), strict=True)
    return b.value(Slice(b.name(name), value.tensor, begin, size, strides), shape, value.axes)


def zero_padded(b: NodeBuilder, name: str, value: Value, around: Around) -> Value:
    cut = {i: range(max(-a, 0), value.shape[i] - max(-z, 0)) for i, (a, z) in around.items() if min(a, z) < 0}
    value = sliced(b, f"{name}/cut", value, cut)
    more = {axis: (max(a, 0), max(z, 0)) for axis, (a, z) in around.items() if max(a, z) > 0}
    if not more:
        return value
    axes = _map_with(b, value, more)
    rows, columns, channels = (more.get(-1 if axis is None else axis, (0, 0)) for axis in axes)
    return b.windowed(Pad(b.name(name), b.arranged(value, axes), rows, columns, channels), value, axes)


def _map_with(b: NodeBuilder, value: Value, more: Around) -> Axes:
    """A map's axes that hold all of `value` and those that are padded."""
    if len(value.shape) == 4 and value.shape[0] == 1 and 0 not in more:
        return b.map_axes
    held = [i for i, n in enumerate(value.shape) if n > 1 or i in more]
    if len(held) > 3:
        raise Unsupported(f"it pads {list(value.shape)}: a map's rows, columns and channels are supported")
    return (*[None] * (3 - len(held)), *held)


def arg_max(b: NodeBuilder, name: str, value: Value, axis: int, *, keep: bool) -> Value:
    axes = with_axis(b, value, axis)
    if axes[-1] != axis:
        axes = (*(held for held in axes if held not in (axis, None)), axis)
    shape = [1 if i == axis else n for i, n in enumerate(value.shape)]
    node = ArgMax(b.name(name), b.arranged(value, axes))
    y = b.value(node, shape, axes)
    return y if keep else b.shaped(y, name, [*shape[:axis], *shape[axis + 1 :]])
