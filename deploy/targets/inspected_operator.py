"""One operator of a .tflite file as targets' rules see it: shapes, types, how its weights are stored, its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Literal

import numpy as np

from deploy.formats.tflite.read import BITS, ModelInfo, OperatorInfo, TensorInfo
from deploy.targets.precision import executed_bits

WeightScales = Literal["per tensor", "per channel", "per block"]
WEIGHT_RANKS = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 4, "TRANSPOSE_CONV": 4, "FULLY_CONNECTED": 2, "CONV_3D": 5}
KERNEL = {"CONV_2D": slice(1, 3), "DEPTHWISE_CONV_2D": slice(1, 3), "TRANSPOSE_CONV": slice(1, 3)}
RESIZES = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator of an inspected model.

    Attributes:
        custom: the code of a CUSTOM operator.
        input_shapes, input_dtypes: of what it computes with; constants are left out.
        weight_shape, weight_dtype, weight_bits: as stored, before a DEQUANTIZE between file and operator.
        granularity: of the weights' scales: per tensor, per channel, per block; None if there are none.
        weight_bytes: stored bytes of the weights, without the bias.
        kernel: height and width of the window of a convolution, a pooling, or a MEAN over both.
        groups: of a CONV_2D; 1 elsewhere.
        resize, centers: of a RESIZE: `resize_ratio`, and how it places its samples.
        constant_size: False for a RESIZE whose size is computed as the model runs.
        at_output: it writes an output of the model.
        readers: the operators that read its outputs, by name.
        scale_ratio: the largest over the smallest scale of the tensors that it reads; 1 where it has weights.
        equal_scales: all that it reads and writes has one scale and zero point; False where it has weights.
        macs: multiply-accumulates of convolutions, fully connected layers and matrix products; 0 for others.
        executed_bits: what it multiplies its weights in (`deploy.targets.precision`); None where there are none.
        result: the name of its first output.
    """

    index: int
    name: str
    custom: str
    version: int
    input_shapes: tuple[Shape, ...]
    input_dtypes: tuple[str, ...]
    output_shapes: tuple[Shape, ...]
    output_dtypes: tuple[str, ...]
    granularity: WeightScales | None
    weight_shape: Shape | None
    weight_dtype: str | None
    weight_bits: int | None
    weight_bytes: int
    activation: str
    kernel: Shape | None
    stride: tuple[int, int] | None
    dilation: tuple[int, int] | None
    groups: int
    resize: str | None
    centers: str | None
    constant_size: bool
    per_channel_activations: bool
    at_output: bool
    readers: tuple[str, ...]
    scale_ratio: float
    equal_scales: bool
    macs: int
    executed_bits: int | None
    result: str


def resize_ratio(before: tuple[int, int], after: tuple[int, int], align_corners: bool = False) -> str:
    """How a RESIZE scales (height, width): 'from 1x1', '1x', '2x', ..., 'fractional up', 'down', 'unequal', 'empty'.

    With `align_corners` the distance between samples counts, which is one less than their number.
    """
    if 0 in (*before, *after):
        return "empty"
    if before == (1, 1):
        return "from 1x1"
    spans = align_corners and min(*before, *after) > 1
    height, width = (Fraction(a - spans, b - spans) for a, b in zip(after, before, strict=True))
    if height != width:
        return "unequal"
    if height.denominator == 1:
        return f"{height}x"
    return "fractional up" if height > 1 else "down"


def inspect_operator(
    index: int, op: OperatorInfo, model: ModelInfo, sources: Mapping[int, int], readers: Mapping[int, Sequence[str]]
) -> Operator:
    """The operator of that index; `sources` are the tensors that a DEQUANTIZE restores, `readers` who reads a tensor.

    Raises ValueError, IndexError for tensors that do not fit its kind.
    """
    inputs = [model.tensors[i] for i in op.inputs if i >= 0]
    outputs = [model.tensors[i] for i in op.outputs]
    moving = [t for t in inputs if not len(t.data)]
    shape, stored = None, None
    if op.name in WEIGHT_RANKS:
        shape = model.tensors[op.inputs[1]].shape
        stored = model.tensors[sources.get(op.inputs[1], op.inputs[1])]
        if min(op.inputs[:2]) < 0 or len(shape) != WEIGHT_RANKS[op.name] or 0 in shape:
            raise ValueError(f"weights {list(shape)}")
    kernel = shape[KERNEL[op.name]] if shape and op.name in KERNEL else op.options.window or _averaged(op, model)
    single = [(float(t.scale[0]), int(t.zero_point[0])) for t in (*inputs, *outputs) if len(t.scale) == 1]
    resize = centers = None
    if op.name in RESIZES:
        before, after = (_plane(t) for t in (inputs[0], outputs[0]))
        resize = resize_ratio(before, after, op.options.align_corners)
        centers = "half pixel" if op.options.half_pixel_centers else "corner"
        centers = "align corners" if op.options.align_corners else centers
    return Operator(
        index,
        op.name,
        op.custom,
        op.version,
        tuple(t.shape for t in moving),
        tuple(t.dtype for t in moving),
        tuple(t.shape for t in outputs),
        tuple(t.dtype for t in outputs),
        _granularity(stored),
        shape,
        stored.dtype if stored else None,
        BITS.get(stored.dtype) if stored else None,
        len(stored.data) if stored else 0,
        op.options.activation,
        kernel,
        op.options.stride,
        op.options.dilation,
        _groups(op, model, shape),
        resize,
        centers,
        op.name not in RESIZES or (len(inputs) > 1 and len(inputs[1].data) > 0),
        any(len(t.scale) > 1 for t in (*inputs, *outputs)),
        bool(set(op.outputs) & set(model.outputs)),
        tuple(name for i in op.outputs for name in readers.get(i, ())),
        _ratio([t.scale[0] for t in inputs if len(t.scale) == 1 and not stored]),
        not stored and len(single) == len(inputs) + len(outputs) and len(set(single)) == 1,
        _macs(op, model, shape),
        executed_bits(op, model) if stored else None,
        outputs[0].name if outputs else "",
    )


def _plane(tensor: TensorInfo) -> tuple[int, int]:
    if len(tensor.shape) != 4:
        raise ValueError(f"a map of shape {list(tensor.shape)}")
    return tensor.shape[1], tensor.shape[2]


def _granularity(weights: TensorInfo | None) -> WeightScales | None:
    if weights is None or not (weights.blockwise or len(weights.scale)):
        return None
    if weights.blockwise:
        return "per block"
    return "per channel" if len(weights.scale) > 1 else "per tensor"


def _groups(op: OperatorInfo, model: ModelInfo, weights: Shape | None) -> int:
    if op.name != "CONV_2D" or weights is None:
        return 1
    source = model.tensors[op.inputs[0]].shape
    if len(source) != 4 or source[3] % weights[3]:
        raise ValueError(f"weights {list(weights)} on a map of {list(source)}")
    return max(1, source[3] // weights[3])


def _macs(op: OperatorInfo, model: ModelInfo, weights: Shape | None) -> int:
    if op.name == "BATCH_MATMUL":
        x = model.tensors[op.inputs[0]].shape
        if len(x) < 2:
            raise ValueError(f"a matrix of shape {list(x)}")
        return prod(model.tensors[op.outputs[0]].shape) * x[-2 if op.options.adjoint else -1]
    if weights is None:
        return 0
    if op.name == "TRANSPOSE_CONV":  # every input element meets the kernel once for each output channel
        return prod(model.tensors[op.inputs[2]].shape) * prod(weights[:3])
    each = {
        "CONV_2D": prod(weights[1:]),
        "DEPTHWISE_CONV_2D": prod(weights[1:3]),
        "FULLY_CONNECTED": weights[-1],
        "CONV_3D": prod(weights[:4]),
    }[op.name]
    return prod(model.tensors[op.outputs[0]].shape) * each


def _averaged(op: OperatorInfo, model: ModelInfo) -> Shape | None:
    """The height and width of a map over which a MEAN goes."""
    if op.name != "MEAN" or len(op.inputs) < 2 or min(op.inputs) < 0:
        return None
    x, axes = (model.tensors[i] for i in op.inputs[:2])
    if axes.dtype != "INT32" or len(x.shape) != 4:
        return None
    over = {int(axis) % 4 for axis in np.frombuffer(axes.data, np.int32)}
    return x.shape[1:3] if over == {1, 2} else None


def _ratio(scales: Sequence[np.float32]) -> float:
    known = [float(scale) for scale in scales if scale > 0]
    return max(known) / min(known) if known else 1.0
