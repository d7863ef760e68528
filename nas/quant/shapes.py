"""Shapes of tensors along a list of float operators, checked before anything is computed.

They leave out the batch and have the deployed file's order: (H, W, C) of a map, (1, 1, C) of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from nas.errors import QuantizationError
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    Arithmetic,
    AveragePool,
    Concat,
    Const,
    Conv,
    DepthToSpace,
    FullyConnected,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Reshape,
    Resize,
    Slice,
    SpaceToDepth,
    Transpose,
    TransposedConv,
    inputs_of,
)
from nas.quant.windows import pair

Shape = tuple[int, ...]


def output_shape(node: Node, shapes: Sequence[Shape]) -> Shape:
    """The result's shape, where `shapes` are those of the inputs of `node`."""
    match node:
        case Conv() | TransposedConv() | AveragePool() | MaxPool():
            return _of_windows(node, shapes[0])
        case Const():
            return _of_constant(node)
        case FullyConnected():
            return *shapes[0][:-1], node.weight.shape[0]
        case Mean():
            return _of_mean(node, shapes[0])
        case Pad():
            height, width, channels = shapes[0]
            return height + sum(node.rows), width + sum(node.columns), channels + sum(node.channels)
        case Reshape():
            return _of_reshape(node, shapes[0])
        case Resize():
            return *node.size, shapes[0][-1]
        case Concat():
            return _with(shapes[0], node.axis, sum(shape[node.axis] for shape in shapes))
        case Slice():
            return *shapes[0][: len(shapes[0]) - len(node.size)], *node.size
        case Transpose():
            return tuple(shapes[0][axis] for axis in node.permutation)
        case DepthToSpace():
            height, width, channels = shapes[0]
            return height * node.block, width * node.block, channels // node.block**2
        case SpaceToDepth():
            height, width, channels = shapes[0]
            return height // node.block, width // node.block, channels * node.block**2
        case ArgMax():
            return _with(shapes[0], node.axis, 1)
        case _ if isinstance(node, Arithmetic):
            return _broadcast(shapes)
        case _:
            return shapes[0]


def _of_windows(node: Conv | TransposedConv | AveragePool | MaxPool, shape: Shape) -> Shape:
    height, width, channels = shape
    if isinstance(node, TransposedConv):
        top, bottom, left, right = node.padding
        (kernel_y, kernel_x), (stride_y, stride_x) = node.kernel, pair(node.stride)
        rows = (height - 1) * stride_y + kernel_y - top - bottom
        return rows, (width - 1) * stride_x + kernel_x - left - right, node.weight.shape[0]
    return *node.window.places((height, width)), node.weight.shape[0] if isinstance(node, Conv) else channels


def _of_constant(node: Const) -> Shape:
    shape = tuple(node.value.shape[1:])
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _of_mean(node: Mean, shape: Shape) -> Shape:
    axes = {axis % len(shape) for axis in node.axes}
    if node.keep_dims:
        return tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    return _as_stored(tuple(n for axis, n in enumerate(shape) if axis not in axes))


def _of_reshape(node: Reshape, shape: Shape) -> Shape:
    known = math.prod(n for n in node.shape if n >= 0)
    return _as_stored(tuple(n if n >= 0 else math.prod(shape) // max(known, 1) for n in node.shape))


def _as_stored(shape: Shape) -> Shape:
    return (1, 1, *shape) if len(shape) == 1 else shape  # a vector


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return tuple(size if i == axis % len(shape) else n for i, n in enumerate(shape))


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    return tuple(max(sizes) if min(sizes) else 0 for sizes in zip(*shapes, strict=True))


def _check_fit(node: Node, shapes: Sequence[Shape]) -> None:
    """`QuantizationError` naming `node` and its inputs where their shapes do not fit."""
    maps = ", ".join(f"'{name}' {'x'.join(map(str, s))}" for name, s in zip(inputs_of(node), shapes, strict=True))
    if isinstance(node, Conv):
        channels, (outputs, inputs) = shapes[0][-1], node.weight.shape[:2]
        if channels % inputs or outputs % (channels // inputs):
            raise QuantizationError(
                f"convolution '{node.name}' has weights for {inputs} channels and reads {maps}: "
                "the channels of a group must divide those of the map, and its groups the results"
            )
    elif isinstance(node, TransposedConv) and shapes[0][-1] != node.weight.shape[1]:
        raise QuantizationError(
            f"transposed convolution '{node.name}' has weights for {node.weight.shape[1]} channels and reads {maps}: "
            "give it weights for all of them"
        )
    elif isinstance(node, FullyConnected):
        inputs = node.weight.shape[1]
        if shapes[0][-1] != inputs or (len(shapes[0]) == 3 and shapes[0] != (1, 1, inputs)):
            raise QuantizationError(
                f"fully connected '{node.name}' has weights for {inputs} inputs and reads {maps}: "
                "flatten or average the map first"
            )
    elif isinstance(node, Arithmetic) and not _fit_together(shapes):
        what = {Add: "addition", Mul: "multiplication"}.get(type(node), "subtraction")
        raise QuantizationError(f"{what} '{node.name}' reads maps of different shapes ({maps}): give them one shape")
    elif isinstance(node, Concat) and len({_with(shape, node.axis, 0) for shape in shapes}) > 1:
        raise QuantizationError(
            f"concatenation '{node.name}' reads maps of different sizes ({maps}): give them one height and width"
        )
    elif isinstance(node, Reshape) and math.prod(output_shape(node, shapes)) != math.prod(shapes[0]):
        raise QuantizationError(f"reshape '{node.name}' to {node.shape} reads {maps}: give it as many elements")


def _fit_together(shapes: Sequence[Shape]) -> bool:
    same_rank = len({len(shape) for shape in shapes}) == 1
    return same_rank and all(len(set(sizes) - {1}) <= 1 for sizes in zip(*shapes, strict=True))


def checked_shape(node: Node, shapes: Mapping[str, Shape]) -> Shape:
    """The result's shape, given those of all tensors before it; `QuantizationError` where the inputs do not fit."""
    unknown = [name for name in inputs_of(node) if name not in shapes]
    if unknown:
        raise QuantizationError(f"'{node.name}' reads '{unknown[0]}', which no operator before it computes")
    read = [shapes[name] for name in inputs_of(node)]
    _check_fit(node, read)
    shape = output_shape(node, read)
    if min(shape, default=1) < 1:
        raise QuantizationError(f"'{node.name}' leaves an empty map, {shape}: give it a larger input")
    return shape


def shapes_of(nodes: Iterable[Node], input_shape: Shape) -> dict[str, Shape]:
    """The shape of every tensor of `nodes`, which read `INPUT`.

    Raises `QuantizationError` naming the operator whose inputs do not fit together.
    """
    shapes = {INPUT: input_shape}
    for node in nodes:
        shapes[node.name] = checked_shape(node, shapes)
    return shapes
