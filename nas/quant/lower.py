"""Lowering: float operators and their tensors' ranges become an `IntegerGraph`.

Weights (`nas.quant.weights`) are per channel or per tensor, activations asymmetric: S = (beta - alpha) / (2^b - 1)
(QA-BWNAS, section 3). All are stored and run as int8: fewer bits use fewer of its 256 values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from nas.errors import QuantizationError
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    FullyConnected,
    MaxPool,
    Mean,
    Node,
    Pad,
    Rearranging,
    Reshape,
    Resize,
    Softmax,
    Weighted,
    inputs_of,
)
from nas.quant.integer_graph import (
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConv,
    QFullyConnected,
    QMaxPool,
    QMean,
    QResize,
    QSoftmax,
)
from nas.quant.integer_graph import Weighted as QWeighted
from nas.quant.integer_operators import QConcat, QPad, QReshape
from nas.quant.ranges import Parameters, Range, activation_parameters, widths_of
from nas.quant.scheme import FewBits, Granularity
from nas.quant.shapes import output_shape
from nas.quant.weights import quantize_weight
from nas.quant.windows import UNPADDED, Pair

RATIO_LIMIT = 256  # LiteRT refuses a convolution whose scales' ratio reaches it, and adds wrongly
NARROWEST = 1e-6  # a narrower range has a scale in which TFLite's kernels overflow (6 / scale leaves int32)
SOFTMAX_PARAMETERS: Parameters = (1 / 256, -128)  # the only ones that TFLite's kernels take
PLAIN: Mapping[type, Callable[[str, str], Operator]] = {
    Mean: QMean,
    Reshape: QReshape,
    Softmax: QSoftmax,
    Resize: QResize,
    ArgMax: QArgMax,
}
"""Operators that have no other fields than their name and their input."""


def _lower_weighted(
    node: Conv | FullyConnected, x: IntTensor, y: IntTensor, granularity: Granularity, few_bits: FewBits
) -> QWeighted:
    q = quantize_weight(node, x.scale, granularity, few_bits)
    ratio = np.float32(x.scale) * q.scale / np.float32(y.scale)
    _check_ratio(node, float(ratio.max()), "weights")
    if isinstance(node, FullyConnected):
        return QFullyConnected(node.name, node.x, q.weight, q.scale, q.bias, node.activation, node.bits, q.offset)
    depthwise = node.weight.shape[1] == 1 and node.weight.shape[0] == x.shape[2]
    layout = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    return QConv(
        node.name,
        node.x,
        np.ascontiguousarray(q.weight.transpose(layout)),
        q.scale,
        q.bias,
        _number(node.stride),
        _number(node.dilation),
        depthwise,
        node.activation,
        node.bits,
        q.offset,
    )


def _number(size: Pair) -> int:
    assert isinstance(size, int)  # noqa: S101 (`_is_plain`)
    return size


def _check_ratio(node: Node, ratio: float, reads: str) -> None:
    if not ratio < RATIO_LIMIT:  # nor NaN
        few = isinstance(node, Weighted) and min(node.bits, node.input_bits) < 8
        raise QuantizationError(
            f"layer '{node.name}': requantization scale {ratio:.3g} is out of TFLite's range (below {RATIO_LIMIT}); "
            f"its output's range is too narrow for its {reads}: retrain it, or "
            f"{'give it more bits' if few else 'calibrate on more images'}"
        )


def _is_plain(node: Node, read: list[IntTensor]) -> bool:
    """Whether `_operator` expresses all that `node` says."""
    match node:
        case Conv() | MaxPool():
            same = node.padding == "same" and isinstance(node.stride, int)
            return same and isinstance(node.kernel if isinstance(node, MaxPool) else node.dilation, int)
        case AveragePool():
            return node.padding == UNPADDED and isinstance(node.kernel, int) and isinstance(node.stride, int)
        case Add():
            return read[0].shape == read[1].shape
        case Mean():
            return node.keep_dims and sorted(node.axes) == [-3, -2]
        case Pad():
            return node.channels == (0, 0)
        case Reshape():
            return len(node.shape) == 1
        case Resize():
            return (node.mode, node.coordinates) == ("bilinear", "half_pixel")
        case Concat() | ArgMax():
            return node.axis == -1
        case _:
            return isinstance(node, FullyConnected | Softmax)


def _check(node: Node, read: list[IntTensor]) -> None:
    """`QuantizationError` where TFLite has no operator for `node` on such tensors."""
    if isinstance(node, Conv) and node.weight.shape[1] not in (1, read[0].shape[2]):
        raise QuantizationError(
            f"convolution '{node.name}' has weights for {node.weight.shape[1]} of {read[0].shape[2]} channels: "
            "only convolutions over all channels and depthwise ones are supported"
        )
    if not _is_plain(node, read):
        raise QuantizationError(f"'{node.name}': there is no integer operator for this form of {type(node).__name__}")
    ranks = {x.rank for x in read}
    if ranks != {4} and (len(ranks) > 1 or not isinstance(node, FullyConnected | Softmax | Reshape | Add)):
        raise QuantizationError(f"'{node.name}' reads the vector '{read[0].name}': it needs a map (H, W, C)")
    if isinstance(node, Concat) and len({(x.scale, x.zero_point) for x in read}) > 1:
        raise QuantizationError(f"'{node.name}' joins tensors of several scales: calibrate them together")


def _output_tensor(node: Node, read: list[IntTensor], parameters: Mapping[str, Parameters]) -> IntTensor:
    """The result of `node`, with new parameters, those of its input, or the operator's fixed ones."""
    height, width, channels = output_shape(node, [x.shape for x in read])
    shape = (height, width, channels)
    if isinstance(node, ArgMax):
        return IntTensor(node.name, shape, 1.0, 0, "int32", rank=3)
    scale, zero_point = parameters[node.name]
    if isinstance(node, Softmax):
        scale, zero_point = SOFTMAX_PARAMETERS
    elif isinstance(node, Rearranging):
        scale, zero_point = read[0].scale, read[0].zero_point
    rank = 2 if isinstance(node, FullyConnected | Reshape) else read[0].rank
    return IntTensor(node.name, shape, scale, zero_point, rank=rank)


def _operator(node: Node, read: list[IntTensor], y: IntTensor, granularity: Granularity, few_bits: FewBits) -> Operator:
    match node:
        case Conv() | FullyConnected():
            return _lower_weighted(node, read[0], y, granularity, few_bits)
        case Add():
            _check_ratio(node, max(x.scale for x in read) / y.scale, "inputs")
            return QAdd(node.name, node.a, node.b, node.activation)
        case AveragePool():
            return QAveragePool(node.name, node.x, _number(node.kernel), _number(node.stride))
        case MaxPool():
            return QMaxPool(node.name, node.x, _number(node.kernel), _number(node.stride))
        case Pad():
            return QPad(node.name, node.x, node.rows, node.columns)
        case Concat():
            return QConcat(node.name, node.xs)
        case Mean() | Reshape() | Softmax() | Resize() | ArgMax():
            return PLAIN[type(node)](node.name, node.x)
        case _:
            raise AssertionError(f"{type(node).__name__} passed the checks")


def parameters_of(ranges: Mapping[str, Range], widths: Mapping[str, int] | None = None) -> dict[str, Parameters]:
    """Scale and zero point of every tensor, from its range and its bits (8 where `widths` names none)."""
    widths = widths or {}
    for name, (low, high) in ranges.items():
        if max(high, 0.0) - min(low, 0.0) < NARROWEST:
            raise QuantizationError(
                f"tensor '{name}' is zero on all calibration images (range {low:g} to {high:g}): "
                "its layer is dead; retrain it, or calibrate on more images"
            )
    return {name: activation_parameters(low, high, widths.get(name, 8)) for name, (low, high) in ranges.items()}


def lower_nodes(
    nodes: Iterable[Node],
    tensors: dict[str, IntTensor],
    parameters: Mapping[str, Parameters],
    granularity: Granularity = "channel",
    few_bits: FewBits = "asymmetric",
) -> list[Operator]:
    """The integer operators of `nodes`, given their input tensors; results are added to `tensors`.

    Lowering a block layer by layer gives the same operators as lowering it at once.
    """
    operators: list[Operator] = []
    for node in nodes:
        read = [tensors[name] for name in inputs_of(node)]
        _check(node, read)
        tensors[node.name] = _output_tensor(node, read, parameters)
        operators.append(_operator(node, read, tensors[node.name], granularity, few_bits))
    return operators


def lower(
    nodes: Iterable[Node],
    ranges: Mapping[str, Range],
    input_shape: tuple[int, int, int],
    granularity: Granularity = "channel",
    few_bits: FewBits = "asymmetric",
) -> IntegerGraph:
    """The `IntegerGraph` of a complete list of nodes that read `INPUT` of shape (H, W, C).

    A tensor has the bits that its readers require. Raises `QuantizationError` where they differ.
    """
    nodes = list(nodes)
    parameters = parameters_of(ranges, widths_of(nodes))
    tensors = {INPUT: IntTensor(INPUT, input_shape, *parameters[INPUT])}
    operators = lower_nodes(nodes, tensors, parameters, granularity, few_bits)
    return IntegerGraph(tensors, tuple(operators), INPUT)
