"""Lowering: float operators and their tensors' ranges become an `IntegerGraph`.

Weights (`nas.quant.weights`) are per channel or per tensor, activations asymmetric: S = (beta - alpha) / (2^b - 1)
(QA-BWNAS, section 3). All are stored and run as int8: fewer bits use fewer of its 256 values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from nas.errors import QuantizationError
from nas.quant.float_graph import (
    INPUT,
    ArgMax,
    Arithmetic,
    Clip,
    Concat,
    Const,
    FullyConnected,
    Mean,
    Node,
    Rearranging,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Weighted,
    inputs_of,
)
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator
from nas.quant.integer_graph import Weighted as QWeighted
from nas.quant.integer_operators import QRequantize
from nas.quant.lowerable import refusal
from nas.quant.lowered_operators import float_layer, operator_of
from nas.quant.names import unused
from nas.quant.ranges import NARROWEST, Parameters, Range, activation_parameters, widths_of
from nas.quant.scheme import FewBits, Granularity
from nas.quant.shapes import Shape, output_shape

FIXED: Mapping[type, Parameters] = {Softmax: (1 / 256, -128), Sigmoid: (1 / 256, -128), Tanh: (1 / 128, 0)}
"""The only ones that TFLite's kernels take for these results."""


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


def source_of(shape: Shape, parameters: Parameters) -> IntTensor:
    """The network's input, of `shape` without the batch: a map's is (H, W, C), a vector's (C,)."""
    return IntTensor(INPUT, (1, 1, *shape) if len(shape) == 1 else shape, *parameters, rank=len(shape) + 1)


def check_lowerable(nodes: Sequence[Node], source: IntTensor) -> None:
    """`QuantizationError` naming every operator that has no integer form, before anything is calibrated."""
    tensors, refusals = {source.name: source}, list[str]()
    any_scale: Mapping[str, Parameters] = defaultdict(lambda: (1.0, 0))
    constants = _constants(nodes)
    for node in nodes:
        read = _read(node, tensors, constants)
        tensors[node.name] = _output_tensor(node, read, any_scale)
        why = refusal(node, read)
        refusals += [f"'{node.name}' {why}"] if why else []
    if refusals:
        raise QuantizationError("; ".join(refusals))


def _constants(nodes: Iterable[Node]) -> set[str]:
    return {node.name for node in nodes if isinstance(node, Const)}


def _output_tensor(node: Node, read: Sequence[IntTensor], parameters: Mapping[str, Parameters]) -> IntTensor:
    """The result of `node`, with new parameters, those of its input, or the operator's fixed ones."""
    shape = output_shape(node, [x.shape for x in read])
    rank = _rank(node, read, shape)
    if isinstance(node, ArgMax):
        return IntTensor(node.name, shape, 1.0, 0, "int32", rank=rank - 1)
    scale, zero_point = FIXED[type(node)] if type(node) in FIXED else parameters[node.name]
    if isinstance(node, Rearranging) and len({(x.scale, x.zero_point) for x in read}) == 1:
        return IntTensor(node.name, shape, read[0].scale, read[0].zero_point, read[0].dtype, rank)
    if isinstance(node, Clip) and node.activation is None:
        scale, zero_point = _within(node, scale, zero_point)
    return IntTensor(node.name, shape, scale, zero_point, rank=rank)


def _rank(node: Node, read: Sequence[IntTensor], shape: Shape) -> int:
    """In the deployed file; a shape of three sizes is a map's, or with one row and column a vector's."""
    match node:
        case Reshape():
            return len(node.shape) + 1
        case Mean(keep_dims=False):
            return read[0].rank - len(set(node.axes))
        case FullyConnected() if len(shape) == 3:
            return 2
    return max((x.rank for x in read), default=len(shape) + 1)


def _within(node: Clip, scale: float, zero_point: int) -> Parameters:
    """The parameters of a range that does not reach beyond the limits of `node`, which saturation then keeps."""
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    if low >= node.low - scale / 2 and high <= node.high + scale / 2:
        return scale, zero_point
    return activation_parameters(max(low, node.low), min(high, node.high))


def _of_one_scale(node: Concat, y: IntTensor, tensors: dict[str, IntTensor]) -> tuple[list[Operator], Concat]:
    """What gives the inputs of `node` the scale of its result `y`, and `node` as it reads that."""
    requantized: list[Operator] = []
    xs = []
    for x in (tensors[name] for name in node.xs):
        name = x.name
        if (x.scale, x.zero_point) != (y.scale, y.zero_point):
            name = unused(f"{x.name}/requantized", tensors)
            tensors[name] = replace(x, name=name, scale=y.scale, zero_point=y.zero_point)
            requantized.append(QRequantize(name, x.name))
        xs.append(name)
    return requantized, replace(node, xs=tuple(xs))


def _read(node: Node, tensors: dict[str, IntTensor], constants: Collection[str]) -> list[IntTensor]:
    """What `node` reads. A constant that meets a vector becomes one, since as a map it would make the result one."""
    read = [tensors[name] for name in inputs_of(node)]
    if constants and isinstance(node, Arithmetic | Concat) and min(x.rank for x in read) == 2:
        read = [replace(x, rank=2) if x.name in constants and x.shape[:-1] == (1, 1) else x for x in read]
        tensors.update({x.name: x for x in read})
    return read


def lower_nodes(
    nodes: Iterable[Node],
    tensors: dict[str, IntTensor],
    parameters: Mapping[str, Parameters],
    granularity: Granularity = "channel",
    few_bits: FewBits = "asymmetric",
    *,
    in_float: Collection[str] = (),
) -> list[Operator]:
    """The integer operators of `nodes`, given their input tensors; results are added to `tensors`.

    Lowering a block layer by layer gives the same operators as lowering it at once. A node's operator has its name;
    before that of a concatenation are those that give its inputs one scale. The layers in `in_float` are computed in
    float.
    """
    nodes, operators = list(nodes), list[Operator]()
    constants = _constants(nodes)
    for node in nodes:
        read = _read(node, tensors, constants)
        if why := refusal(node, read):
            raise QuantizationError(f"'{node.name}' {why}")
        y = tensors[node.name] = _output_tensor(node, read, parameters)
        if isinstance(node, Concat):
            requantized, node = _of_one_scale(node, y, tensors)  # noqa: PLW2901
            operators += requantized
        operator = operator_of(node, read, y, granularity, few_bits)
        if isinstance(node, Weighted) and isinstance(operator, QWeighted) and node.name in in_float:
            operator = float_layer(node, operator)
        operators.append(operator)
    return operators


def lower(
    nodes: Iterable[Node],
    ranges: Mapping[str, Range],
    input_shape: Shape,
    granularity: Granularity = "channel",
    few_bits: FewBits = "asymmetric",
    *,
    outputs: Sequence[str] = (),
    in_float: Collection[str] = (),
) -> IntegerGraph:
    """The `IntegerGraph` of a complete list of nodes that read `INPUT` of shape (H, W, C), or (C,) if it is a vector.

    A tensor has the bits that its readers require. Raises `QuantizationError` where they differ. `outputs` names the
    tensors that are wanted; by default the last one is. `in_float`: layers that are computed in float.
    """
    nodes = list(nodes)
    parameters = parameters_of(ranges, widths_of(nodes))
    tensors = {INPUT: source_of(input_shape, parameters[INPUT])}
    operators = lower_nodes(nodes, tensors, parameters, granularity, few_bits, in_float=in_float)
    return IntegerGraph(tensors, tuple(operators), INPUT, tuple(outputs))
