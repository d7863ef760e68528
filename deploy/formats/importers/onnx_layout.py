"""ONNX's operators that choose, move or repeat elements."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.formats.importers.moves import arg_max, joined, sliced, zero_padded
from deploy.formats.importers.network import Operand, Unsupported, Value
from deploy.formats.importers.onnx_graph import REAL_TYPES
from deploy.formats.importers.onnx_op import Handlers, Op
from nas.quant.float_graph import DepthToSpace, Resize, SpaceToDepth
from nas.quant.rearranging import Coordinates, ResizeMode, sampled

INT_LIMIT = 2**31


def _identity(op: Op) -> Sequence[Operand]:
    return [op.value()]


def _cast(op: Op) -> Sequence[Operand]:
    from onnx import TensorProto

    wanted, value = TensorProto.DataType.Name(op.integer("to", TensorProto.FLOAT)), op.value()
    if wanted not in REAL_TYPES and not op.builder.is_index(value):
        raise Unsupported(f"a cast of real numbers to {wanted}: TFLite's operators on integers do not round so")
    return [value]


def _cast_like(op: Op) -> Sequence[Operand]:
    like = op.operand(1)
    if not isinstance(like, Value) and like.dtype.kind != "f":
        raise Unsupported(f"a cast of real numbers to {like.dtype}")
    return [op.operand(0)]


def _dropout(op: Op) -> Sequence[Operand]:
    training = op.optional_array(2)
    if training is not None and bool(training.reshape(())):
        raise Unsupported("a dropout in training mode: export the network in evaluation mode")
    return [op.value(), np.ones(op.value().shape, bool)]


def _shape(op: Op) -> Sequence[Operand]:
    shape = np.array(op.value().shape, np.int64)
    end = op.node.attributes.get("end")
    return [shape[op.integer("start", 0) : end if isinstance(end, int) else None]]


def _size(op: Op) -> Sequence[Operand]:
    return [np.array(np.prod(op.value().shape), np.int64)]


def _reshape(op: Op) -> Sequence[Value]:
    value, wanted = op.value(), list(op.sizes(1))
    if not op.integer("allowzero", 0):
        wanted = [value.shape[i] if n == 0 and i < len(value.shape) else n for i, n in enumerate(wanted)]
    total = int(np.prod(value.shape))
    known = int(np.prod([n for n in wanted if n != -1]))
    if wanted.count(-1) == 1 and known > 0:
        wanted[wanted.index(-1)] = total // known
    if min(wanted, default=1) < 1:
        raise Unsupported(f"a reshape to {list(op.sizes(1))}")
    return [op.builder.shaped(value, op.name, wanted)]


def _flatten(op: Op) -> Sequence[Value]:
    value, rank = op.value(), len(op.value().shape)
    axis = op.integer("axis", 1)
    axis = axis + rank if axis < 0 else axis
    rows = int(np.prod(value.shape[:axis]))
    return [op.builder.shaped(value, op.name, (rows, int(np.prod(value.shape)) // rows))]


def _squeeze(op: Op) -> Sequence[Value]:
    value, rank = op.value(), len(op.value().shape)
    axes = op.axes_or_input("axes", 1, 13)
    gone = {i for i, n in enumerate(value.shape) if n == 1} if axes is None else {op.axis(a, rank) for a in axes}
    return [op.builder.shaped(value, op.name, [n for i, n in enumerate(value.shape) if i not in gone])]


def _unsqueeze(op: Op) -> Sequence[Value]:
    value = op.value()
    axes = op.axes_or_input("axes", 1, 13) or ()
    rank = len(value.shape) + len(axes)
    new = {op.axis(axis, rank) for axis in axes}
    sizes = iter(value.shape)
    return [op.builder.shaped(value, op.name, [1 if i in new else next(sizes, 1) for i in range(rank)])]


def _transpose(op: Op) -> Sequence[Value]:
    value = op.value()
    order = op.integers("perm", range(len(value.shape))[::-1])
    return [op.builder.transposed(value, order)]


def _expand(op: Op) -> Sequence[Value]:
    value = op.value()
    shape = np.broadcast_shapes(value.shape, op.sizes(1))
    if int(np.prod(shape)) != int(np.prod(value.shape)):
        raise Unsupported("it repeats what is computed: let the operator that reads it broadcast")
    return [op.builder.shaped(value, op.name, shape)]


def _image(op: Op) -> Value:
    value = op.value()
    if len(value.shape) != 4 or value.shape[0] != 1:
        raise Unsupported(f"it reads {list(value.shape)}: maps (1, C, H, W) are supported; export a batch of 1")
    return value


def _depth_to_space(op: Op) -> Sequence[Value]:
    b, value, block = op.builder, _image(op), op.integer("blocksize", 1)
    if op.text("mode", "DCR") == "CRD":
        batch, channels, height, width = value.shape
        parts = b.shaped(value, f"{op.name}/parts", (batch, channels // block**2, block**2, height, width))
        value = b.shaped(b.transposed(parts, (0, 2, 1, 3, 4)), f"{op.name}/channels", value.shape)
    node = DepthToSpace(b.name(op.name), b.arranged(value, b.map_axes), block)
    return [b.windowed(node, value, b.map_axes)]


def _space_to_depth(op: Op) -> Sequence[Value]:
    b, value, block = op.builder, _image(op), op.integer("blocksize", 1)
    if block < 1 or value.shape[2] % block or value.shape[3] % block:
        raise Unsupported(f"blocks of {block} in a map of {value.shape[2]} x {value.shape[3]}")
    node = SpaceToDepth(b.name(op.name), b.arranged(value, b.map_axes), block)
    y = b.windowed(node, value, b.map_axes)
    if op.text("mode", "DCR") == "CRD":
        batch, channels, height, width = y.shape
        parts = b.shaped(y, f"{op.name}/parts", (batch, block**2, channels // block**2, height, width))
        y = b.shaped(b.transposed(parts, (0, 2, 1, 3, 4)), f"{op.name}/channels", y.shape)
    return [y]


def _concat(op: Op) -> Sequence[Value]:
    operands = [op.operand(i) for i in range(len(op.inputs))]
    axis = op.axis(op.integer("axis", 0), len(operands[0].shape))
    return [joined(op.builder, op.name, operands, axis)]


def _split(op: Op) -> Sequence[Value]:
    value = op.value()
    axis = op.axis(op.integer("axis", 0), len(value.shape))
    sizes = op.axes_or_input("split", 1, 13)
    if not sizes:
        count = op.integer("num_outputs", len(op.node.outputs))
        part = -(-value.shape[axis] // max(count, 1))
        sizes = tuple(min(part, value.shape[axis] - i * part) for i in range(count))
    if sum(sizes) != value.shape[axis] or len(sizes) != len(op.node.outputs):
        raise Unsupported(f"parts {list(sizes)} of an axis of {value.shape[axis]}")
    starts = [0, *itertools.accumulate(sizes)]
    named = zip(op.node.outputs, starts, sizes, strict=False)
    return [sliced(op.builder, name, value, {axis: range(first, first + n)}) for name, first, n in named]


def _slice(op: Op) -> Sequence[Value]:
    value, rank = op.value(), len(op.value().shape)
    starts, ends = op.sizes(1), op.sizes(2)
    axes = tuple(range(len(starts))) if op.optional_array(3) is None else op.sizes(3)
    steps = (1,) * len(starts) if op.optional_array(4) is None else op.sizes(4)
    taken = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise Unsupported("a step of 0")
        where = op.axis(axis, rank)
        taken[where] = range(value.shape[where])[slice(start, end, step)]
    return [sliced(op.builder, op.name, value, taken)]


def _gather(op: Op) -> Sequence[Value]:
    value, index = op.value(), op.array(1)
    axis = op.axis(op.integer("axis", 0), len(value.shape))
    if index.ndim > 1 or not index.size:
        raise Unsupported(f"a gather by indices {list(index.shape)}: only a slice is supported")
    places = [int(i) % value.shape[axis] for i in index.reshape(-1)]
    step = places[1] - places[0] if len(places) > 1 else 1
    part = range(places[0], places[0] + step * len(places), step or 1)
    if list(part) != places:
        raise Unsupported("a gather by indices that are not evenly apart: only a slice is supported")
    y = sliced(op.builder, op.name, value, {axis: part})
    return [y] if index.ndim else [op.builder.shaped(y, op.name, (*y.shape[:axis], *y.shape[axis + 1 :]))]


def _pad(op: Op) -> Sequence[Value]:
    op.only(mode="constant")
    value, rank = op.value(), len(op.value().shape)
    fill = op.optional_array(2)
    if fill is not None and float(fill.reshape(())) != 0:
        raise Unsupported(f"it pads with {float(fill.reshape(())):g}: zeros are supported")
    pads = op.sizes(1)
    axes = tuple(range(rank)) if op.optional_array(3) is None else tuple(op.axis(a, rank) for a in op.sizes(3))
    if len(pads) != 2 * len(axes) or max(map(abs, pads), default=0) > INT_LIMIT:
        raise Unsupported(f"pads {list(pads)} for {len(axes)} axes")
    around = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    return [zero_padded(op.builder, op.name, value, around)]


def _resize(op: Op) -> Sequence[Value]:
    b, value = op.builder, _image(op)
    mode = _mode(op)
    scales, size = _scales(op, value)
    if size == value.shape[2:] and set(scales) == {1.0}:
        return [value]
    wanted = [_positions(op, mode, axis) for axis in zip(value.shape[2:], size, scales, strict=True)]
    for coordinates in ("half_pixel", "align_corners", "asymmetric"):
        if _samples_alike(wanted, value.shape[2:], mode, coordinates):
            node = Resize(b.name(op.name), b.arranged(value, b.map_axes), size, mode, coordinates)
            return [b.windowed(node, value, b.map_axes)]
    raise Unsupported(
        f"{op.text('coordinate_transformation_mode', 'half_pixel')} coordinates from {value.shape[2]} x "
        f"{value.shape[3]} to {size[0]} x {size[1]}: TFLite samples elsewhere"
    )


def _mode(op: Op) -> ResizeMode:
    op.only(exclude_outside=0, keep_aspect_ratio_policy="stretch")
    match op.text("mode", "nearest"):
        case "nearest":
            return "nearest"
        case "linear":
            return "bilinear"
        case other:
            raise Unsupported(f"{other} interpolation: nearest and linear are supported")


def _scales(op: Op, value: Value) -> tuple[tuple[float, float], tuple[int, int]]:
    """Of rows and columns: the scale and the size of the result."""
    given, sizes = op.optional_array(2), op.optional_array(3)
    axes = [op.axis(axis, 4) for axis in op.integers("axes", range(4))]
    by_size = sizes is not None and sizes.size > 0
    numbers = sizes if by_size else given
    if numbers is None or numbers.size != len(axes):
        raise Unsupported("it has neither sizes nor scales for its axes")
    factors = dict(zip(axes, numbers.astype(np.float64).reshape(-1), strict=True))
    if by_size:
        factors = {axis: number / value.shape[axis] for axis, number in factors.items()}
    if factors.get(0, 1.0) != 1 or factors.get(1, 1.0) != 1:
        raise Unsupported("it resizes the batch or the channels")
    rows, columns = (float(factors.get(axis, 1.0)) for axis in (2, 3))
    if not (0 < rows < 1e4 and 0 < columns < 1e4):
        raise Unsupported(f"scales {rows:g} and {columns:g}")
    round_ = round if by_size else lambda x: int(np.floor(np.float32(x)))
    return (rows, columns), (round_(value.shape[2] * rows), round_(value.shape[3] * columns))


def _positions(op: Op, mode: ResizeMode, axis: tuple[int, int, float]) -> NDArray[np.float64]:
    """Where ONNX samples one axis, (input size, result's size, scale): whole numbers for `nearest`."""
    size_in, size_out, scale = axis
    index = np.arange(size_out, dtype=np.float64)
    match op.text("coordinate_transformation_mode", "half_pixel"):
        case "half_pixel":
            place = (index + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            place = (index + 0.5) / scale - 0.5 if size_out > 1 else index * 0
        case "half_pixel_symmetric":
            place = size_in / 2 * (1 - size_out / (scale * size_in)) + (index + 0.5) / scale - 0.5
        case "align_corners":
            length = scale * size_in  # not always a whole number
            place = index * (size_in - 1) / (length - 1) if length != 1 else index * 0
        case "asymmetric":
            place = index / scale
        case other:
            raise Unsupported(f"{other} coordinates: TFLite has none such")
    if mode == "bilinear":
        if op.integer("antialias", 0) and scale < 1:
            raise Unsupported("it smooths while it shrinks (antialias): TFLite does not")
        return place.clip(0, size_in - 1)
    rounded = {
        "round_prefer_floor": np.ceil(place - 0.5),
        "round_prefer_ceil": np.floor(place + 0.5),
        "floor": np.floor(place),
        "ceil": np.ceil(place),
    }
    return rounded[op.text("nearest_mode", "round_prefer_floor")].clip(0, size_in - 1)


def _samples_alike(
    wanted: Sequence[NDArray[np.float64]], sizes: Sequence[int], mode: ResizeMode, coordinates: Coordinates
) -> bool:
    ours = [sampled(n, len(place), mode, coordinates).numpy() for n, place in zip(sizes, wanted, strict=True)]
    return all(np.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(ours, wanted, strict=True))


def _arg_max(op: Op) -> Sequence[Value]:
    if op.integer("select_last_index", 0):
        raise Unsupported("the last of equal elements: TFLite takes the first")
    value, keep = op.value(), bool(op.integer("keepdims", 1))
    return [arg_max(op.builder, op.name, value, op.axis(op.integer("axis", 0), len(value.shape)), keep=keep)]


HANDLERS: Handlers = {
    "ArgMax": _arg_max,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
