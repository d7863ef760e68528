"""ONNX's Resize: which of TFLite's ways to choose positions samples where ONNX does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.formats.importers.network import Unsupported, Value
from deploy.formats.importers.onnx_op import Handlers, Op
from nas.quant.float_graph import Resize
from nas.quant.rearranging import Coordinates, ResizeMode, sampled


def _resize(op: Op) -> Sequence[Value]:
    b, value = op.builder, op.image()
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


HANDLERS: Handlers = {"Resize": _resize}
