"""One float operator as the integer operator of its name, given the integer tensors that it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from nas.errors import QuantizationError
from nas.quant.file_order import to_file_order
from nas.quant.float_graph import (
    Add,
    ArgMax,
    Arithmetic,
    AveragePool,
    Clip,
    Concat,
    Const,
    DepthToSpace,
    FullyConnected,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    PRelu,
    Reshape,
    Resize,
    Sigmoid,
    Slice,
    Softmax,
    SpaceToDepth,
    Sub,
    Tanh,
    Transpose,
    TransposedConv,
    Weighted,
)
from nas.quant.integer_graph import (
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConv,
    QFloatLayer,
    QFullyConnected,
    QMaxPool,
    QMean,
    QMul,
    QResize,
    QSoftmax,
    QSub,
    QTransposedConv,
)
from nas.quant.integer_graph import Weighted as QWeighted
from nas.quant.integer_operators import (
    QConcat,
    QConstant,
    QDepthToSpace,
    QHardSwish,
    QLeakyRelu,
    QPad,
    QPRelu,
    QRelu,
    QRelu6,
    QRequantize,
    QReshape,
    QSigmoid,
    QSlice,
    QSpaceToDepth,
    QTanh,
    QTranspose,
)
from nas.quant.scheme import FewBits, Granularity
from nas.quant.simulate import quantize
from nas.quant.weights import quantize_weight

RATIO_LIMIT = 256  # LiteRT refuses a convolution whose scales' ratio reaches it, adds and multiplies wrongly
HARD_SWISH_LIMIT = 128  # LiteRT refuses a result whose scale is finer than the input's by more
SMALLEST_SLOPE = 1e-9
Numbers = TypeVar("Numbers", bound=np.generic)

ALIKE: Mapping[type, Callable[..., Operator]] = {
    Add: QAdd,
    ArgMax: QArgMax,
    AveragePool: QAveragePool,
    Concat: QConcat,
    DepthToSpace: QDepthToSpace,
    HardSwish: QHardSwish,
    LeakyRelu: QLeakyRelu,
    MaxPool: QMaxPool,
    Mean: QMean,
    Mul: QMul,
    Pad: QPad,
    Reshape: QReshape,
    Resize: QResize,
    Sigmoid: QSigmoid,
    Slice: QSlice,
    Softmax: QSoftmax,
    SpaceToDepth: QSpaceToDepth,
    Sub: QSub,
    Tanh: QTanh,
    Transpose: QTranspose,
}
"""Whose attributes have the same names on both sides; what a float operator has besides is in the result's shape."""


CLIPS: Mapping[str, type[QRelu] | type[QRelu6]] = {"relu": QRelu, "relu6": QRelu6}
"""To other limits, integers clip by saturation (`nas.quant.lower`)."""


def _shared_attributes(node: type, operator: Callable[..., Operator]) -> tuple[str, ...]:
    return tuple(name for name in signature(operator).parameters if name in signature(node).parameters)


ATTRIBUTES = {node: _shared_attributes(node, operator) for node, operator in ALIKE.items()}


def operator_of(
    node: Node, read: list[IntTensor], y: IntTensor, granularity: Granularity, few_bits: FewBits
) -> Operator:
    """The integer operator of `node`; `QuantizationError` where no kernel computes it on these scales."""
    if isinstance(node, Weighted):
        return _weighted(node, read[0], y, granularity, few_bits)
    match node:
        case Const():
            values = quantize(to_file_order(node.value.detach().cpu()), y)
            return QConstant(node.name, values.to(torch.int8).numpy())
        case Clip():
            return CLIPS.get(node.activation or "", QRequantize)(node.name, node.x)
        case PRelu():
            return _prelu(node)
    if isinstance(node, Arithmetic):
        scales = [x.scale for x in read]
        check_ratio(node, (scales[0] * scales[1] if isinstance(node, Mul) else max(scales)) / y.scale, "inputs")
    if isinstance(node, HardSwish) and y.scale * HARD_SWISH_LIMIT < read[0].scale:
        raise QuantizationError(
            f"'{node.name}': its result's scale is {read[0].scale / y.scale:.3g} times as fine as its input's, and "
            f"TFLite takes up to {HARD_SWISH_LIMIT}: calibrate on more images"
        )
    return ALIKE[type(node)](**{name: getattr(node, name) for name in ATTRIBUTES[type(node)]})


def check_ratio(node: Node, ratio: float, reads: str) -> None:
    """`QuantizationError` where the scales that `node` reads are too coarse for that of its result."""
    if not ratio < RATIO_LIMIT:  # nor NaN
        few = isinstance(node, Weighted) and min(node.bits, node.input_bits) < 8
        raise QuantizationError(
            f"layer '{node.name}': requantization scale {ratio:.3g} is out of TFLite's range (below {RATIO_LIMIT}); "
            f"its output's range is too narrow for its {reads}: retrain it, or "
            f"{'give it more bits' if few else 'calibrate on more images'}"
        )


def _weighted(node: Weighted, x: IntTensor, y: IntTensor, granularity: Granularity, few_bits: FewBits) -> QWeighted:
    q = quantize_weight(node, x.scale, granularity, few_bits)
    ratio = np.float32(x.scale) * q.scale / np.float32(y.scale)
    check_ratio(node, float(ratio.max()), "weights")
    last = node.activation, node.bits, q.offset
    if isinstance(node, FullyConnected):
        return QFullyConnected(node.name, node.x, q.weight, q.scale, q.bias, *last)
    depthwise = not isinstance(node, TransposedConv) and is_depthwise(node.weight, x.shape[2])
    weight = _deployed(q.weight, depthwise=depthwise)
    if isinstance(node, TransposedConv):
        return QTransposedConv(node.name, node.x, weight, q.scale, q.bias, node.stride, *last, node.padding)
    placed = node.stride, node.dilation, depthwise
    return QConv(node.name, node.x, weight, q.scale, q.bias, *placed, *last, node.padding)


def float_layer(node: Weighted, layer: QWeighted) -> QFloatLayer:
    """The layer that `node` became, computed in float."""
    weight, bias = (part.detach().cpu().float().numpy() for part in (node.weight, node.bias))
    if not isinstance(layer, QFullyConnected):
        weight = _deployed(weight, depthwise=isinstance(layer, QConv) and layer.depthwise)
    return QFloatLayer(layer, np.asarray(weight, np.float32), np.asarray(bias, np.float32))


def _deployed(weight: NDArray[Numbers], *, depthwise: bool) -> NDArray[Numbers]:
    """From (O, I, k, k) to the file's order."""
    return np.ascontiguousarray(weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)))


def is_depthwise(weight: torch.Tensor, channels: int) -> bool:
    """Each result reads one channel; where there is no other one, a plain convolution says the same."""
    outputs, inputs = weight.shape[:2]
    return inputs == 1 and (channels > 1 or outputs == 1)


def _prelu(node: PRelu) -> QPRelu:
    slope = node.slope.detach().cpu().reshape(-1).numpy()
    scale = np.float32(max(float(np.abs(slope).max()) / 127, SMALLEST_SLOPE))
    return QPRelu(node.name, node.x, np.rint(slope / scale).astype(np.int8), float(scale), 0)
