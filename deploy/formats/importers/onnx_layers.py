"""ONNX's operators with weights or windows: convolutions, products, normalizations, pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deploy.formats.importers.arithmetic import combined
from deploy.formats.importers.builder import finite
from deploy.formats.importers.moves import mean
from deploy.formats.importers.network import Array, Axes, Unsupported, Value
from deploy.formats.importers.onnx_op import Handlers, Op
from deploy.formats.importers.products import (
    affine,
    convolution,
    product,
    transposed_convolution,
)
from nas.quant.float_graph import Add, AveragePool, MaxPool, Mul, Pad
from nas.quant.windows import UNPADDED, Padding, Pads, Pair, Window, pair


def _map(op: Op) -> tuple[Value, Axes]:
    """The first input and those of its axes that are rows, columns and channels; a row of its own for (N, C, L)."""
    value = op.value()
    if len(value.shape) not in (3, 4):
        raise Unsupported(f"it slides over {len(value.shape) - 2} axes: TFLite's windows have one or two")
    if value.shape[0] != 1:
        raise Unsupported(
            f"it reads a batch of {value.shape[0]}: export the network with a batch of 1, or give --input-shape"
        )
    return value, (2, 3, 1) if len(value.shape) == 4 else (None, 2, 1)


def _pair(numbers: Sequence[int], rest: int) -> Pair:
    """Rows and columns, `rest` for the rows that (N, C, L) does not have; one number where they are alike."""
    if len(numbers) not in (1, 2) or min(numbers, default=0) < 0:
        raise Unsupported(f"{list(numbers)} for rows and columns")
    rows, columns = (numbers[0], numbers[1]) if len(numbers) == 2 else (rest, numbers[0])
    return rows if rows == columns else (rows, columns)


def _pads(op: Op, rank: int) -> Pads:
    """Top, bottom, left, right."""
    pads = op.integers("pads", [0] * 2 * rank)
    if len(pads) != 2 * rank:
        raise Unsupported(f"pads {list(pads)} for {rank} axes")
    return (pads[0], pads[2], pads[1], pads[3]) if rank == 2 else (0, 0, pads[0], pads[1])


def _window(op: Op, kernel: Pair, size: tuple[int, int]) -> Window:
    """The window of a convolution or pool over a map of `size`."""
    rank = len(op.value().shape) - 2
    stride, dilation = (_pair(op.integers(name, [1] * rank), 1) for name in ("strides", "dilations"))
    window = Window(kernel, stride, dilation, _padding(op, rank))
    if op.text("auto_pad", "NOTSET") == "SAME_LOWER":
        top, bottom, left, right = window.pads(size)
        return replace(window, padding=(bottom, top, right, left))  # the surplus in front
    return window


def _padding(op: Op, rank: int) -> Padding:
    match op.text("auto_pad", "NOTSET"):
        case "SAME_UPPER" | "SAME_LOWER":
            return "same"
        case "VALID":
            return UNPADDED
        case _:
            return _pads(op, rank)


def _size(x: tuple[Value, Axes]) -> tuple[int, int]:
    value, axes = x
    rows, columns = (1 if axis is None else value.shape[axis] for axis in axes[:2])
    return rows, columns


def _with_rows(weight: Array) -> Array:
    """The weights of (N, C, L) as those of a map with one row."""
    return weight[:, :, None] if weight.ndim == 3 else weight


def _conv(op: Op) -> Sequence[Value]:
    x, weight = _map(op), _with_rows(op.array(1))
    if weight.ndim != 4 or weight.shape[1] * op.integer("group", 1) != x[0].shape[1]:
        raise Unsupported(
            f"weights {list(weight.shape)} in {op.integer('group', 1)} groups for {x[0].shape[1]} channels"
        )
    window = _window(op, (weight.shape[2], weight.shape[3]), _size(x))
    return [convolution(op.builder, op.name, x, (weight, op.optional_array(2)), window)]


def _transposed_conv(op: Op) -> Sequence[Value]:
    x, weight, groups = _map(op), _with_rows(op.array(1)), op.integer("group", 1)
    if weight.ndim != 4 or len(weight) != x[0].shape[1] or len(weight) % groups:
        raise Unsupported(f"weights {list(weight.shape)} in {groups} groups for {x[0].shape[1]} channels")
    rank = len(x[0].shape) - 2
    stride, dilation = (_pair(op.integers(name, [1] * rank), 1) for name in ("strides", "dilations"))
    dense = _dilated(_dense(weight, groups), pair(dilation))
    window = Window((dense.shape[2], dense.shape[3]), stride)
    window = replace(window, padding=_cut(op, _size(x), window))
    return [transposed_convolution(op.builder, op.name, x, (dense, op.optional_array(2)), window)]


def _dense(weight: Array, groups: int) -> Array:
    """(I, O/groups, k, k) as (O, I, k, k), zero between groups."""
    inputs, outputs = len(weight) // groups, weight.shape[1]
    dense = np.zeros((outputs * groups, len(weight), *weight.shape[2:]), np.float32)
    for g in range(groups):
        part = weight[g * inputs : (g + 1) * inputs].swapaxes(0, 1)
        dense[g * outputs : (g + 1) * outputs, g * inputs : (g + 1) * inputs] = part
    return dense


def _dilated(weight: Array, dilation: tuple[int, int]) -> Array:
    """The kernel with zeros between its elements."""
    if dilation == (1, 1):
        return weight
    rows, columns = ((n - 1) * d + 1 for n, d in zip(weight.shape[2:], dilation, strict=True))
    wide = np.zeros((*weight.shape[:2], rows, columns), np.float32)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


def _cut(op: Op, size: tuple[int, int], window: Window) -> Pads:
    """What a transposed convolution leaves out of its full result: top, bottom, left, right."""
    rank = len(op.value().shape) - 2
    extra = pair(_pair(op.integers("output_padding", [0] * rank), 0))
    auto = op.text("auto_pad", "NOTSET")
    wanted = pair(_pair(op.integers("output_shape", [0] * rank)[-rank:], 1))
    kernel, stride = pair(window.kernel), pair(window.stride)
    if auto.startswith("SAME") and not max(op.integers("output_shape", [0])):
        wanted = (size[0] * stride[0], size[1] * stride[1])
    elif not max(op.integers("output_shape", [0])):
        top, bottom, left, right = UNPADDED if auto == "VALID" else _pads(op, rank)
        return top, bottom - extra[0], left, right - extra[1]
    sides = []
    for n, k, s, more, out in zip(size, kernel, stride, extra, wanted, strict=True):
        total = max((n - 1) * s + more + k - out, 0)
        first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        sides += [first, (n - 1) * s + k - out - first]
    return sides[0], sides[1], sides[2], sides[3]


def _batch_normalization(op: Op) -> Sequence[Value]:
    op.only(training_mode=0)
    scale, shift, mean, variance = (finite(op.array(i)).astype(np.float64) for i in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + op.real("epsilon", 1e-5))
    offset = (shift - mean * factor).astype(np.float32)
    value = op.value()
    if len(value.shape) in (3, 4) and value.shape[0] == 1:
        return [affine(op.builder, op.name, _map(op), factor.astype(np.float32), offset)]
    along = (-1, *[1] * (len(value.shape) - 2))
    scaled = combined(op.builder, f"{op.name}/scaled", Mul, value, factor.reshape(along))
    return [combined(op.builder, op.name, Add, scaled, offset.reshape(along))]


def _gemm(op: Op) -> Sequence[Value]:
    value, weight = op.value(), finite(op.array(1)) * np.float32(op.real("alpha", 1.0))
    if op.integer("transA", 0):
        value = op.builder.transposed(value, (1, 0))
    weight = weight if op.integer("transB", 0) else weight.swapaxes(0, 1)
    bias = op.optional_array(2)
    if bias is not None:
        bias = finite(bias) * np.float32(op.real("beta", 1.0))
    return [_biased(op, value, weight, bias)]


def _biased(op: Op, value: Value, weight: Array, bias: Array | None) -> Value:
    if bias is None or bias.size == 1 or bias.shape[-1] == bias.size == len(weight):
        flat = None if bias is None else np.broadcast_to(bias.reshape(-1), (len(weight),))
        return product(op.builder, op.name, value, weight, flat)
    y = product(op.builder, f"{op.name}/product", value, weight, None)
    return combined(op.builder, op.name, Add, y, bias)


def _matmul(op: Op) -> Sequence[Value]:
    value, weight = op.value(), op.array(1)
    if weight.ndim == 1:
        y = product(op.builder, op.name, value, weight[None], None)
        return [op.builder.shaped(y, op.name, y.shape[:-1])]
    if math.prod(weight.shape[:-2]) != 1:
        raise Unsupported(f"weights {list(weight.shape)} that differ along a batch: split them")
    y = product(op.builder, op.name, value, weight.reshape(weight.shape[-2:]).swapaxes(0, 1), None)
    rank = max(len(value.shape), weight.ndim)
    return [op.builder.shaped(y, op.name, (*[1] * (rank - len(y.shape)), *y.shape))]


def _beyond(op: Op, window: Window, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns by which the last windows pass the end of the padded map, as `ceil_mode` has them."""
    if not op.integer("ceil_mode", 0) or window.padding == "same":
        return 0, 0
    top, bottom, left, right = window.padding
    more = []
    sides = zip(size, pair(window.kernel), pair(window.stride), (top, left), (bottom, right), strict=True)
    for n, k, s, before, after in sides:
        steps = -(-(n + before + after - k) // s)
        if steps * s >= n + before:  # it would begin in the padding
            steps -= 1
        more.append(max(steps * s + k - (n + before + after), 0))
    return more[0], more[1]


def _pool(op: Op) -> tuple[tuple[Value, Axes], Window, tuple[int, int]]:
    x = _map(op)
    if any(n != 1 for n in op.integers("dilations", [1])):
        raise Unsupported("a dilated pool: TFLite has none")
    window = _window(op, _pair(op.integers("kernel_shape", ()), 1), _size(x))
    return x, window, _beyond(op, window, _size(x))


def _max_pool(op: Op) -> Sequence[Value]:
    if len(op.node.outputs) > 1:
        raise Unsupported("the places of the largest elements: TFLite's pool does not give them")
    (value, axes), window, beyond = _pool(op)
    padding = window.padding
    if padding != "same":
        top, bottom, left, right = padding
        padding = (top, bottom + beyond[0], left, right + beyond[1])
    b = op.builder
    node = MaxPool(b.name(op.name), b.arranged(value, axes), window.kernel, window.stride, padding)
    return [b.windowed(node, value, axes)]


def _average_pool(op: Op) -> Sequence[Value]:
    (value, axes), window, beyond = _pool(op)
    b = op.builder
    read, padding = b.arranged(value, axes), window.padding
    if padding != "same":
        top, bottom, left, right = padding
        if op.integer("count_include_pad", 0) and padding != UNPADDED:
            read = b.add(Pad(b.name(f"{op.name}/padded"), read, (top, bottom), (left, right)))
            top = bottom = left = right = 0
        padding = (top, bottom + beyond[0], left, right + beyond[1])
    elif op.integer("count_include_pad", 0):
        raise Unsupported("count_include_pad with auto_pad: give the padding in numbers")
    node = AveragePool(b.name(op.name), read, window.kernel, window.stride, padding)
    return [b.windowed(node, value, axes)]


def _global_average_pool(op: Op) -> Sequence[Value]:
    value = op.value()
    return [mean(op.builder, op.name, value, range(2, len(value.shape)))]


def _global_max_pool(op: Op) -> Sequence[Value]:
    value, axes = _map(op)
    b = op.builder
    node = MaxPool(b.name(op.name), b.arranged(value, axes), _pair(_size((value, axes)), 1), 1, UNPADDED)
    return [b.windowed(node, value, axes)]


def _reduce_mean(op: Op) -> Sequence[Value]:
    value = op.value()
    rank = len(value.shape)
    axes = op.axes_or_input("axes", 1, 18)
    if not axes:
        axes = () if op.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    over = {op.axis(axis, rank) for axis in axes}
    y = mean(op.builder, op.name, value, sorted(over))
    if op.integer("keepdims", 1):
        return [y]
    return [op.builder.shaped(y, op.name, [n for axis, n in enumerate(y.shape) if axis not in over])]


HANDLERS: Handlers = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _transposed_conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "ReduceMean": _reduce_mean,
}
