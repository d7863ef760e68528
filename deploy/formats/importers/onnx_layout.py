"""ONNX's operators that choose, move or repeat elements."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from deploy.formats.importers.moves import arg_max, joined, sliced, zero_padded
from deploy.formats.importers.network import Operand, Unsupported, Value
from deploy.formats.importers.onnx_graph import REAL_TYPES
from deploy.formats.importers.onnx_op import Handlers, Op
from nas.quant.float_graph import DepthToSpace, SpaceToDepth

INT_LIMIT = 2**31
REAL_DTYPES = ("float16", "float32", "float64", "bfloat16")


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
    if not isinstance(like, Value) and like.dtype.name not in REAL_DTYPES:
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


def _depth_to_space(op: Op) -> Sequence[Value]:
    b, value, block = op.builder, op.image(), op.integer("blocksize", 1)
    if op.text("mode", "DCR") == "CRD":
        batch, channels, height, width = value.shape
        parts = b.shaped(value, f"{op.name}/parts", (batch, channels // block**2, block**2, height, width))
        value = b.shaped(b.transposed(parts, (0, 2, 1, 3, 4)), f"{op.name}/channels", value.shape)
    node = DepthToSpace(b.name(op.name), b.arranged(value, b.map_axes), block)
    return [b.windowed(node, value, b.map_axes)]


def _space_to_depth(op: Op) -> Sequence[Value]:
    b, value, block = op.builder, op.image(), op.integer("blocksize", 1)
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
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
