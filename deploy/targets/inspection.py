"""What a .tflite file holds, operator by operator: shapes, types, how weights are stored, and multiply-accumulates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import prod
from typing import Any

from deploy.formats.tflite.read import BITS, ModelInfo, OperatorInfo, TensorInfo
from deploy.targets.precision import executed_bits, requested_bits, widths
from hil.errors import ModelError

METADATA_NAME = "hilnas"  # the writer's
MAX_DEPTH = 32  # of the metadata, so that no later reader runs out of stack
PER_TENSOR, PER_CHANNEL, PER_BLOCK = "per tensor", "per channel", "per block"
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
        kernel: height and width of a convolution's or pooling's window.
        groups: of a CONV_2D; 1 elsewhere.
        resize, centers: of a RESIZE: `resize_ratio`, and how it places its samples.
        constant_size: False for a RESIZE whose size is computed as the model runs.
        at_output: it writes an output of the model.
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
    granularity: str | None
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
    macs: int
    executed_bits: int | None
    result: str


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of the model; `scale` is empty where it is not quantized.

    `signature` is its shape with -1 for each size that the file leaves open; empty where it leaves none open.
    """

    name: str
    shape: Shape
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    signature: Shape = ()


@dataclass(frozen=True)
class Inspection:
    """A model's first subgraph.

    Attributes:
        parameters: elements of the constants that operators read, without sizes, axes and other plain integers.
        weight_bytes: stored bytes of these parameters, biases included; a shared tensor counts once.
        operators_by_kind: how many there are of each.
        stored_bits: the widths, ascending, in which the file holds weights: 4 for INT4, 8 for an int8 container.
        executed_bits: the widths in which they are multiplied (`Operator.executed_bits`).
        requested_bits: the widths that the weights were quantized to, from our writer's metadata; None if it
            has none. A width below the stored one saves space only in the packed form (`deploy.formats.pack`), and one
            below the executed one saves no time.
        hilnas: the metadata that our writer put in, None if there is none.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    macs: int
    parameters: int
    weight_bytes: int
    file_bytes: int
    operators_by_kind: Mapping[str, int]
    subgraphs: int
    signatures: tuple[str, ...]
    requested_bits: tuple[int, ...] | None
    stored_bits: tuple[int, ...]
    executed_bits: tuple[int, ...]
    hilnas: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect_model(model: ModelInfo) -> Inspection:
    """Raises `ModelError` for an operator whose tensors do not fit its kind, and for unreadable hilnas metadata."""
    sources = {
        op.outputs[0]: op.inputs[0] for op in model.operators if op.name == "DEQUANTIZE" and op.inputs and op.outputs
    }
    operators = []
    for i, op in enumerate(model.operators):
        try:
            operators.append(_operator(i, op, model, sources))
        except (ValueError, IndexError) as error:
            raise ModelError(
                f"operator {i} ({op.name}) has other tensors than its kind: {error}; export again"
            ) from None
    constants, metadata = _parameters(model), _metadata(model)
    return Inspection(
        tuple(operators),
        tuple(_graph_tensor(model.tensors[i]) for i in model.inputs),
        tuple(_graph_tensor(model.tensors[i]) for i in model.outputs),
        sum(op.macs for op in operators),
        sum(prod(t.shape) for t in constants),
        sum(len(t.data) for t in constants),
        model.size_bytes,
        dict(Counter(op.custom or op.name for op in operators).most_common()),
        model.subgraphs,
        model.signatures,
        requested_bits(metadata),
        widths(op.weight_bits for op in operators),
        widths(op.executed_bits for op in operators),
        metadata,
    )


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


def _operator(index: int, op: OperatorInfo, model: ModelInfo, sources: Mapping[int, int]) -> Operator:
    inputs = [model.tensors[i] for i in op.inputs if i >= 0]
    outputs = [model.tensors[i] for i in op.outputs]
    moving = [t for t in inputs if not len(t.data)]
    shape, stored = None, None
    if op.name in WEIGHT_RANKS:
        shape = model.tensors[op.inputs[1]].shape
        stored = model.tensors[sources.get(op.inputs[1], op.inputs[1])]
        if min(op.inputs[:2]) < 0 or len(shape) != WEIGHT_RANKS[op.name] or 0 in shape:
            raise ValueError(f"weights {list(shape)}")
    kernel = shape[KERNEL[op.name]] if shape and op.name in KERNEL else op.options.window
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
        _macs(op, model, shape),
        executed_bits(op, model) if stored else None,
        outputs[0].name if outputs else "",
    )


def _plane(tensor: TensorInfo) -> tuple[int, int]:
    if len(tensor.shape) != 4:
        raise ValueError(f"a map of shape {list(tensor.shape)}")
    return tensor.shape[1], tensor.shape[2]


def _granularity(weights: TensorInfo | None) -> str | None:
    if weights is None or not (weights.blockwise or len(weights.scale)):
        return None
    if weights.blockwise:
        return PER_BLOCK
    return PER_CHANNEL if len(weights.scale) > 1 else PER_TENSOR


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


def _parameters(model: ModelInfo) -> list[TensorInfo]:
    read = {i for op in model.operators for i in op.inputs if i >= 0}
    constants = [model.tensors[i] for i in sorted(read) if len(model.tensors[i].data)]
    plain = ("INT32", "INT64", "BOOL", "STRING")
    return [t for t in constants if t.dtype not in plain or len(t.scale)]


def _graph_tensor(tensor: TensorInfo) -> GraphTensor:
    return GraphTensor(
        tensor.name,
        tensor.shape,
        tensor.dtype,
        tuple(float(s) for s in tensor.scale),
        tuple(int(z) for z in tensor.zero_point),
        tensor.signature,
    )


def _metadata(model: ModelInfo) -> Mapping[str, Any] | None:
    if METADATA_NAME not in model.metadata:
        return None
    try:
        found = json.loads(bytes(model.metadata[METADATA_NAME]).rstrip(b"\0"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        found = None
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [
            v for at in level if isinstance(at, dict | list) for v in (at.values() if isinstance(at, dict) else at)
        ]
    if not isinstance(found, dict) or level:
        raise ModelError(
            f"its metadata '{METADATA_NAME}' is no JSON object of at most {MAX_DEPTH} levels; write the model again"
        )
    return found


def _no_number(word: str) -> None:
    raise ValueError(word)
