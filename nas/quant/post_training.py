"""Post-training quantization of a full network, by a `Scheme`: prepare, calibrate, round, lower, correct.

nas/nsr.py takes the same steps layer by layer along a tree, with the same numbers bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from nas.quant import adaptive_rounding, simulate
from nas.quant.bias_correction import correct_biases
from nas.quant.equalize import equalize
from nas.quant.expressed import expressed
from nas.quant.float_graph import INPUT, Node, Weighted
from nas.quant.integer_graph import IntegerGraph
from nas.quant.lower import check_lowerable, lower, source_of
from nas.quant.pooled_ranges import calibrate_pooled
from nas.quant.ranges import IMAGE_RANGE, Range, calibrate, minmax, observer_of
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.shapes import Shape, shapes_of

Preparation = Callable[[Sequence[Node], Sequence[Mapping[str, Tensor]], Collection[str]], list[Node]]


def unchanged(
    nodes: Sequence[Node],
    calibration: Sequence[Mapping[str, Tensor]],  # noqa: ARG001
    outputs: Collection[str] = (),  # noqa: ARG001
) -> list[Node]:
    return list(nodes)


PREPARATIONS: Mapping[str, Preparation] = {"none": unchanged, "equalize": equalize}
"""From float operators, and their inputs for each calibration batch, to ones that lose less when quantized.

The tensors that are outputs keep their values, and so does the last one.
"""


def prepared(
    nodes: Sequence[Node],
    calibration: Sequence[Mapping[str, Tensor]],
    scheme: Scheme,
    outputs: Collection[str] = (),
) -> list[Node]:
    """The operators that `scheme` quantizes: the same float function on the calibration data."""
    return PREPARATIONS[scheme.preparation](nodes, calibration, outputs)


def layers_to_round(nodes: Iterable[Node], scheme: Scheme) -> set[str]:
    """The names of the layers whose weights `scheme` rounds adaptively."""
    if scheme.rounding == "nearest":
        return set()
    most_bits = 8 if scheme.rounding == "adaptive all" else 7
    return {node.name for node in nodes if isinstance(node, Weighted) and node.bits <= most_bits}


def grams_to_round(
    nodes: Sequence[Node], calibration: Sequence[Mapping[str, Tensor]], layers: Collection[str]
) -> dict[str, Tensor]:
    """What adaptive rounding needs to know of the inputs of `layers`."""
    return adaptive_rounding.gram_matrices(nodes, calibration, layers) if layers else {}


def rounded(nodes: Sequence[Node], grams: Mapping[str, Tensor], scheme: Scheme) -> list[Node]:
    """`nodes` with weights rounded as `scheme` does before it lowers them, given `grams_to_round`."""
    layers = layers_to_round(nodes, scheme)
    of_layers = {name: gram for name, gram in grams.items() if name in layers}
    return adaptive_rounding.rounded(nodes, of_layers, scheme.granularity, scheme.few_bits)


def lowerable(nodes: Sequence[Node], input_shape: Shape) -> list[Node]:
    """`nodes` as operators that TFLite has on integers; `QuantizationError` naming all that it has not.

    So is an operator whose inputs do not fit together, before torch meets them.
    """
    source = source_of(input_shape, (1.0, 0))
    nodes = expressed(nodes, shapes_of(nodes, source.shape))
    check_lowerable(nodes, source)
    return nodes


def quantize(
    nodes: Sequence[Node],
    batches: Iterable[Tensor],
    input_shape: Shape,
    scheme: Scheme = DEFAULT,
    input_range: Range = IMAGE_RANGE,
    *,
    outputs: Sequence[str] = (),
    in_float: Collection[str] = (),
) -> IntegerGraph:
    """The `IntegerGraph` of `nodes`, which read `INPUT` of shape (H, W, C), calibrated on batches (N, C, H, W).

    A vector's shape is (C,), its batches (N, C, 1, 1). `outputs` names the tensors that are wanted; by default the last
    one is. `in_float`: layers that are computed in float. Raises `QuantizationError` naming the operators or the tensor
    that cannot be quantized, and why.
    """
    batches = list(batches)
    nodes = lowerable(nodes, input_shape)
    floats = [{INPUT: batch} for batch in batches]
    nodes = prepared(nodes, floats, scheme, outputs)
    ranges = _calibrated(nodes, batches, scheme, outputs) | {INPUT: input_range}
    grams = grams_to_round(nodes, floats, layers_to_round(nodes, scheme) - set(in_float))
    on_grid = rounded(nodes, grams, scheme)
    how = scheme.granularity, scheme.few_bits
    graph = lower(on_grid, ranges, input_shape, *how, outputs=outputs, in_float=in_float)
    if scheme.bias_correction:
        source = graph.tensors[INPUT]
        integers = [{INPUT: simulate.quantize(batch, source)} for batch in batches]
        operators = correct_biases(nodes, graph.operators, graph.tensors, floats, integers)
        graph = replace(graph, operators=tuple(operators))
    return graph


def _calibrated(
    nodes: Sequence[Node], batches: Sequence[Tensor], scheme: Scheme, outputs: Sequence[str]
) -> dict[str, Range]:
    observer = observer_of(scheme.observer)
    if scheme.pooled and batches and observer is not minmax:
        return calibrate_pooled(nodes, batches, observer, outputs or (nodes[-1].name,))
    return calibrate(nodes, batches, observer)
