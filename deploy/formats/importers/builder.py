"""Float nodes under construction, in the deployed order of axes.

An imported tensor remembers where its axes are (`Value.axes`). Transpositions, and axes of size 1 that come and go,
only change that; nodes for them are added where an operator needs another order, and most are never needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.formats.importers.network import Array, Axes, Unsupported, Value
from nas.errors import QuantizationError
from nas.quant.file_order import from_file_order
from nas.quant.float_graph import INPUT, ArgMax, Const, Node, Reshape, Transpose
from nas.quant.shapes import Shape, checked_shape

MOST_AXES = 5  # of a deployed tensor, the batch left out: TFLite's TRANSPOSE takes six


class NodeBuilder:
    """Attributes:
    nodes: in the order in which they run.
    map_axes: the axes of a file's (1, C, H, W) or (1, H, W, C) that are a map's rows, columns and channels.
    """

    def __init__(self, map_axes: tuple[int, int, int]) -> None:
        self.map_axes = map_axes
        self.nodes: list[Node] = []
        self._shapes: dict[str, Shape] = {}
        self._arranged: dict[tuple[str, Axes], str] = {}

    def input(self, shape: tuple[int, ...], axes: Axes) -> Value:
        value = Value(INPUT, shape, axes)
        self._shapes[INPUT] = _stored(value.deployed_shape)
        return value

    def name(self, wanted: str) -> str:
        """A name for a new node: one printable word that no other has."""
        word = re.sub(r"[^\x21-\x7e]", "_", wanted)[:200] or "node"
        name, number = word, 1
        while name in self._shapes:
            name, number = f"{word}/{number}", number + 1
        return name

    def add(self, node: Node) -> str:
        """The name of `node`, now the last one; `Unsupported` where its inputs do not fit."""
        try:
            self._shapes[node.name] = checked_shape(node, self._shapes)
        except QuantizationError as error:
            raise Unsupported(str(error)) from None
        self.nodes.append(node)
        return node.name

    def is_index(self, value: Value) -> bool:
        """Whether it holds the whole numbers of an ARG_MAX."""
        return any(node.name == value.tensor and isinstance(node, ArgMax) for node in self.nodes)

    def value(self, node: Node, shape: Sequence[int], axes: Axes) -> Value:
        """The result of `node`, which has `shape` in the file and holds `axes` of it."""
        value = Value(self.add(node), tuple(shape), axes)
        if _stored(value.deployed_shape) != self._shapes[node.name]:
            raise Unsupported(f"its result has the shape {self._shapes[node.name]}, not {value.deployed_shape}")
        return value

    def arranged(self, value: Value, axes: Axes) -> str:
        """The tensor that holds `axes` of `value`, which has no others that are longer than 1."""
        key = (
            value.tensor,
            tuple(None if axis is None or value.shape[axis] == 1 else value.axes.index(axis) for axis in axes),
        )
        if key not in self._arranged:
            value = self._ordered(value, axes)
            shape = tuple(1 if axis is None else value.shape[axis] for axis in axes)
            same = shape == value.deployed_shape
            name = self.name(f"{value.tensor}/reshaped")
            self._arranged[key] = value.tensor if same else self.add(Reshape(name, value.tensor, shape))
        return self._arranged[key]

    def _ordered(self, value: Value, axes: Axes) -> Value:
        """`value`, transposed where those of its axes that are longer than 1 are not in the order of `axes`."""
        held, wanted = _held(value, value.axes), _held(value, axes)
        if held == wanted:
            return value
        if set(held) != set(wanted):
            raise Unsupported(f"an operator over some axes only of its input {list(value.shape)}")
        places = _places(value, axes)
        if len(places) > MOST_AXES:
            raise Unsupported(f"a transposition of {len(places) + 1} axes: TFLite takes {MOST_AXES + 1}")
        permutation = tuple(place - len(places) for place in places)
        name = self.add(Transpose(self.name(f"{value.tensor}/transposed"), value.tensor, permutation))
        return Value(name, value.shape, tuple(value.axes[place] for place in places))

    def windowed(self, node: Node, value: Value, axes: Axes) -> Value:
        """The result of a `node` whose windows slide over a map that holds `axes` of `value`."""
        name = self.add(node)
        sizes = dict(zip(axes, self._shapes[name], strict=True))
        return Value(name, tuple(sizes.get(axis, size) for axis, size in enumerate(value.shape)), axes)

    def constant(self, name: str, array: Array, axes: Axes) -> str:
        """A constant tensor that holds `axes` of `array`, the only ones longer than 1."""
        return self.add(Const(self.name(name), laid_out(array, axes)))

    def shaped(self, value: Value, name: str, shape: Sequence[int]) -> Value:
        """`value` with another shape, its elements in the imported file's order."""
        shape = tuple(shape)
        if math.prod(shape) != math.prod(value.shape):
            raise Unsupported(f"{list(shape)} has not as many elements as its input's {list(value.shape)}")
        moved = _kept_in_place(value, shape)
        if moved is None:
            value = self._ordered(value, tuple(range(len(value.shape))))
            moved = [axis for axis, size in enumerate(shape) if size > 1]
        held = _held(value, value.axes)
        if [value.shape[axis] for axis in held] == [shape[axis] for axis in moved]:  # only axes of size 1 come or go
            renamed = dict(zip(held, moved, strict=True))
            return Value(value.tensor, shape, tuple(None if axis is None else renamed.get(axis) for axis in value.axes))
        axes = self._with_ones(shape, moved)
        return self.value(Reshape(self.name(name), value.tensor, tuple(shape[i] for i in axes)), shape, axes)

    def _with_ones(self, shape: Sequence[int], moved: list[int]) -> tuple[int, ...]:
        """`moved` with the axes of size 1, the batch left out, where the file or a deployed map has them."""
        for order in (all_axes(shape), self.map_axes if len(shape) == 4 else ()):
            if [axis for axis in order if shape[axis] > 1] == moved:
                return order
        return tuple(moved)

    def transposed(self, value: Value, permutation: Sequence[int]) -> Value:
        """`value` with its axes in another order, as numpy's transpose gives it."""
        if sorted(permutation) != list(range(len(value.shape))):
            raise Unsupported(f"{list(permutation)} is no order of {len(value.shape)} axes")
        shape = tuple(value.shape[axis] for axis in permutation)
        axes = tuple(None if axis is None else list(permutation).index(axis) for axis in value.axes)
        return Value(value.tensor, shape, axes)

    def output(self, value: Value) -> Value:
        """`value` as a deployed output: a map, or in the file's own order and shape."""
        if len(value.shape) == len(value.axes) + 1 == 4 and value.axes == self.map_axes:
            return value
        axes = all_axes(value.shape)
        return Value(self.arranged(value, axes), value.shape, axes)


def laid_out(array: Array, axes: Axes) -> Tensor:
    """`array`, of which only `axes` are longer than 1, as a constant tensor of the float network."""
    held = [axis for axis in axes if axis is not None]
    left = [axis for axis in range(array.ndim) if axis not in held]
    shape = [1 if axis is None else array.shape[axis] for axis in axes]
    real = finite(array).transpose(*left, *held).reshape(1, *shape)
    return from_file_order(torch.from_numpy(np.ascontiguousarray(real)))


def finite(array: Array) -> NDArray[np.float32]:
    """Constants as float32; `Unsupported` for what is no number."""
    with np.errstate(over="ignore", invalid="ignore"):  # found below
        real = np.asarray(array).astype(np.float32)
    if not np.isfinite(real).all():
        raise Unsupported(
            "its constants hold NaN or infinity: train the network again, or export it from a sound state"
        )
    return real


def all_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """A tensor's axes in the file's own order, the batch left out."""
    return tuple(range(1 if shape[:1] == (1,) else 0, len(shape)))


def _held(value: Value, axes: Axes) -> list[int]:
    return [axis for axis in axes if axis is not None and value.shape[axis] > 1]


def _stored(shape: Shape) -> Shape:
    return (1, 1, *shape) if len(shape) == 1 else shape  # a vector


def _places(value: Value, axes: Axes) -> list[int]:
    """For each axis of the transposed tensor, the axis of the present one: at its final place wherever there is one."""
    place_of = {axis: place for place, axis in enumerate(value.axes) if axis is not None and value.shape[axis] > 1}
    ones = [place for place in range(len(value.axes)) if place not in place_of.values()]
    if len(axes) != len(value.axes):
        return [*(place_of[axis] for axis in axes if axis in place_of), *ones]
    return [place_of[axis] if axis in place_of else ones.pop(0) for axis in axes]


def _kept_in_place(value: Value, shape: Sequence[int]) -> list[int] | None:
    """The axes of a reshaped tensor, longer than 1, where runs of axes that are next to each other become its own.

    (C, H, W) as (C, H W) leaves a deployed (H, W, C) as it is: (H W, C). None where elements would move.
    """
    present = _held(value, value.axes)
    groups = {old[0]: (old, new) for old, new in _groups(value.shape, shape)}
    moved: list[int] = []
    while present:
        old, new = groups.get(present[0], ([], []))
        if not old or present[: len(old)] != old:
            return None
        present = present[len(old) :]
        moved += new
    return moved


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes longer than 1 that have as many elements before as after a reshape."""
    old = [axis for axis, size in enumerate(before) if size > 1]
    new = [axis for axis, size in enumerate(after) if size > 1]
    while old:
        group, made = [old.pop(0)], [new.pop(0)]
        while (sizes := (math.prod(before[i] for i in group), math.prod(after[i] for i in made)))[0] != sizes[1]:
            (group if sizes[0] < sizes[1] else made).append((old if sizes[0] < sizes[1] else new).pop(0))
        yield group, made
