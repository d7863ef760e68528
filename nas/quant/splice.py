"""Blocks in context: cut out of a full `IntegerGraph`, exchanged in it, placed between two boundary convolutions, or
joined with what precedes them.

A block is the run of operators named `b3/...`; its block boundaries are its input and its output tensor. A boundary
tensor keeps its producer's scale and zero point, and its readers are adapted: requantization multipliers follow from
the tensors, also those of additions and means, so only the bias of a convolution that reads it must be converted to the
new unit, b' = round(b * s_old / s_new). That changes it by at most half a unit of input x weight scale, so the function
is preserved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from nas.errors import ConfigError, QuantizationError
from nas.quant.integer_graph import (
    Arithmetic,
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QConv,
    QFloatLayer,
    QMean,
    Weighted,
    reads,
)
from nas.quant.integer_operators import QConcat, QConstant
from nas.quant.lowered_operators import RATIO_LIMIT

BIAS_LIMIT = 2**30  # as in `lower`: half of int32 is left to the products
_IN_A_BLOCK = re.compile(r"b\d+/")


def exchanged(subnet: IntegerGraph, reference: IntegerGraph) -> IntegerGraph:
    """The full `reference` with `subnet` in the place of its block of the same number.

    Raises `ConfigError` unless the block exists and its input and output have the same shapes, `QuantizationError`
    where a reader cannot take the other scale.
    """
    span, entry, leaving = _matched(subnet, reference)
    body = _reading(subnet.operators, subnet.tensors[subnet.input], entry)
    after = _reading(reference.operators[span.stop :], leaving, subnet.tensors[subnet.output])
    operators = (*reference.operators[: span.start], *body, *after)
    return _graph(reference.tensors[reference.input], operators, reference, subnet)


def bounded(subnet: IntegerGraph, reference: IntegerGraph) -> IntegerGraph:
    """`subnet` between its boundary convolutions, so that its input and output are not the graph's.

    Before it is the projection that ends the block before (its residual addition, if any, left out), after it the
    expansion that begins the next block (the head's first convolution after the last block), without its activation:
    an activation at the graph's output would be an extra layer on some devices. Raises as `exchanged`.
    """
    _, _, leaving = _matched(subnet, reference)
    before, after = _neighbours(reference, _number(subnet))
    body = _reading(subnet.operators, subnet.tensors[subnet.input], reference.tensors[before.name])
    last = _reading([after], leaving, subnet.tensors[subnet.output])
    return _graph(reference.tensors[before.x], (before, *body, *last), reference, subnet)


def joined(before: IntegerGraph, after: IntegerGraph) -> IntegerGraph:
    """`after` reading what `before` outputs: two neighbours whose block boundary is inside one graph.

    Raises `ConfigError` where the map between them has two shapes, `QuantizationError` where a reader cannot take the
    other scale.
    """
    ours, theirs = after.tensors[after.input], before.tensors[before.output]
    if ours.shape != theirs.shape:
        raise ConfigError(f"'{theirs.name}' is {_text(theirs)}, what follows reads {_text(ours)}: join neighbours")
    body = _reading(after.operators, ours, theirs)
    return _graph(before.tensors[before.input], (*before.operators, *body), before, after)


def preceded(subnet: IntegerGraph, reference: IntegerGraph) -> IntegerGraph:
    """`subnet` after the reference's block before it, the first block after the stem. Raises as `exchanged`."""
    _matched(subnet, reference)
    return joined(before_block(reference, _number(subnet)), subnet)


def before_block(reference: IntegerGraph, block: int) -> IntegerGraph:
    """What precedes block number `block`: the block before it, isolated, or all that precedes the first one."""
    if block == 1:
        return reference.until(block_input(reference, 1))
    span, entry, _ = _boundaries(reference, block - 1)
    return _graph(entry, reference.operators[span], reference)


def boundary(reference: IntegerGraph, block: int) -> IntegerGraph:
    """What `bounded` adds to block number `block`, without the block: latency(block) = bounded - boundary.

    The graph's input and output and the neighbours' maps are those of the bounded form. Where the block changes the
    map's shape, a dense 1x1 convolution with its stride replaces it: the least that connects the two. The difference is
    then less than the block's time by that convolution's, which is the same for all subnets of a block: no ranking
    changes.
    """
    _, _, leaving = _boundaries(reference, block)
    before, after = _neighbours(reference, block)
    entry = reference.tensors[before.name]
    if entry.shape == leaving.shape:
        return _graph(reference.tensors[before.x], (before, *_reading([after], leaving, entry)), reference)
    stand_in = _stand_in(before, entry, leaving)
    return _graph(reference.tensors[before.x], (before, stand_in, after), reference)


def boundary_input(reference: IntegerGraph, block: int) -> str:
    """The name of the reference's tensor that the bounded form of `block` and its boundary read."""
    return _neighbours(reference, block)[0].x


def block_input(reference: IntegerGraph, block: int) -> str:
    """The name of the reference's tensor that block number `block` reads."""
    return _boundaries(reference, block)[1].name


def boundary_maps(reference: IntegerGraph) -> tuple[IntTensor, ...]:
    """The tensors at a full graph's block boundaries, in order: the input of block 1, then each block's output."""
    numbers = {op.name.partition("/")[0] for op in reference.operators if _IN_A_BLOCK.match(op.name)}
    boundaries = [_boundaries(reference, block) for block in range(1, len(numbers) + 1)]
    if not boundaries:
        raise ConfigError("the reference has no block b1: take a full model")
    return (boundaries[0][1], *(leaving for _, _, leaving in boundaries))


def after_blocks(reference: IntegerGraph) -> IntegerGraph:
    """What follows the last block of a full graph, isolated: it reads that block's output."""
    span, _, leaving = _boundaries(reference, len(boundary_maps(reference)) - 1)
    return _graph(leaving, reference.operators[span.stop :], reference)


def _number(subnet: IntegerGraph) -> int:
    prefix = subnet.operators[0].name.partition("/")[0]
    if not (prefix[:1] == "b" and prefix[1:].isdecimal()):
        raise ConfigError(
            f"operator '{subnet.operators[0].name}' is of no block: the operators of a subnet are named b1/0/..."
        )
    return int(prefix[1:])


def _boundaries(reference: IntegerGraph, block: int) -> tuple[slice, IntTensor, IntTensor]:
    """The slice of the block's operators, their input and their output tensor."""
    where = [i for i, op in enumerate(reference.operators) if op.name.startswith(f"b{block}/")]
    if not where:
        raise ConfigError(f"the reference has no block b{block}: take a full model of the subnet's space")
    span = slice(where[0], where[-1] + 1)
    entry = reference.tensors[reads(reference.operators[span.start])[0]]
    return span, entry, reference.tensors[reference.operators[span.stop - 1].name]


def _matched(subnet: IntegerGraph, reference: IntegerGraph) -> tuple[slice, IntTensor, IntTensor]:
    """The boundaries of the block that `subnet` replaces."""
    number = _number(subnet)
    span, entry, leaving = _boundaries(reference, number)
    for name, theirs in ((subnet.input, entry), (subnet.output, leaving)):
        ours = subnet.tensors[name]
        if ours.shape != theirs.shape:
            raise ConfigError(
                f"block b{number}: '{name}' is {_text(ours)} in the subnet, '{theirs.name}' {_text(theirs)} in the "
                "reference: both must be of one space and one image size"
            )
    return span, entry, leaving


def _text(tensor: IntTensor) -> str:
    return "x".join(map(str, tensor.shape))


def _neighbours(reference: IntegerGraph, block: int) -> tuple[QConv, QConv]:
    """The boundary convolutions: the last before the block, and the first that reads its output, without activation."""
    span, entry, leaving = _boundaries(reference, block)
    before = [op for op in reference.operators[: span.start] if isinstance(op, QConv)]
    after = [op for op in reference.operators[span.stop :] if isinstance(op, QConv) and op.x == leaving.name]
    if not before or not after or reference.tensors[before[-1].name].shape != entry.shape:
        raise ConfigError(f"block b{block} of the reference is not between two convolutions: take a full model")
    return before[-1], replace(after[0], activation="none")


def _stand_in(before: QConv, x: IntTensor, y: IntTensor) -> QConv:
    """A 1x1 convolution from `x` to `y`: 8 bits, dense (compilers may skip zeros), with its neighbour's granularity."""
    channels, outputs = x.shape[2], y.shape[2]
    magnitude = np.random.default_rng(0).integers(1, 128, (outputs, 1, 1, channels))
    weight = (magnitude * np.where(np.arange(channels) % 2, -1, 1)).astype(np.int8)
    scale = np.full(1 if before.weight_scale.size == 1 else outputs, y.scale / (x.scale * 128), np.float32)
    stride = 1 if x.shape[:2] == y.shape[:2] else 2
    return QConv(y.name, before.name, weight, scale, np.zeros(outputs, np.int32), stride, 1, False, "none", 8)


def _graph(source: IntTensor, operators: Iterable[Operator], *origins: IntegerGraph) -> IntegerGraph:
    """The graph of `operators` on `source`; tensors are looked up in `origins`, the last one first."""
    operators = tuple(operators)
    known = {name: tensor for origin in origins for name, tensor in origin.tensors.items()}
    tensors = {source.name: source, **{op.name: known[op.name] for op in operators}}
    for op in operators:
        _check_ratio(op, tensors)
    return IntegerGraph(tensors, operators, source.name)


def _check_ratio(op: Operator, tensors: Mapping[str, IntTensor]) -> None:
    """The check of `lower`: a boundary tensor's other scale can take an operator out of the kernels' range."""
    if not isinstance(op, Weighted | QAdd):
        return
    unit = float(op.weight_scale.max()) if isinstance(op, Weighted) else 1.0
    ratio = max(tensors[x].scale for x in reads(op)) * unit / tensors[op.name].scale
    if not ratio < RATIO_LIMIT:
        raise QuantizationError(
            f"'{op.name}': requantization scale {ratio:.3g} is out of TFLite's range (below {RATIO_LIMIT}) between "
            "these block boundaries: calibrate the block and the reference on the same images"
        )


def _reading(operators: Iterable[Operator], old: IntTensor, new: IntTensor) -> list[Operator]:
    """`operators` that read `new` instead of `old`: the same real values, perhaps at another scale."""
    return [_follow(op, old, new) if old.name in reads(op) else op for op in operators]


def _follow(op: Operator, old: IntTensor, new: IntTensor) -> Operator:
    if isinstance(op, Arithmetic):
        return replace(op, a=new.name if op.a == old.name else op.a, b=new.name if op.b == old.name else op.b)
    if isinstance(op, Weighted):
        return replace(_rescaled(op, old.scale / new.scale), x=new.name)
    if not isinstance(op, QMean) and (old.scale, old.zero_point) != (new.scale, new.zero_point):
        raise QuantizationError(
            f"'{op.name}' has the scale of what it reads: '{old.name}' cannot be exchanged for '{new.name}' before it"
        )
    assert not isinstance(op, QConstant | QFloatLayer)  # noqa: S101 (it reads nothing; blocks have none of the other)
    if isinstance(op, QConcat):
        return replace(op, xs=tuple(new.name if x == old.name else x for x in op.xs))
    return replace(op, x=new.name)


def _rescaled(op: Weighted, ratio: float) -> Weighted:
    """`op` with its bias times `ratio`.

    Where the bias would leave no room for the products (a nearly dead channel, whose scale `lower` chose for its bias),
    the weight scale doubles until it fits.
    """
    if ratio == 1:
        return op
    bias = op.bias * ratio
    doublings = np.ceil(np.log2(np.maximum(np.abs(bias) / BIAS_LIMIT, 1)))
    if op.weight_scale.size == 1:
        doublings = doublings.max(keepdims=True)
    factor = (2**doublings).astype(np.float32)
    bias = np.rint(bias / factor).astype(np.int32)
    if (factor == 1).all():
        return replace(op, bias=bias)
    along_outputs = (
        factor if isinstance(op, QConv) and op.depthwise else factor.reshape(-1, *[1] * (op.weight.ndim - 1))
    )
    weight = np.rint(op.weight / along_outputs).astype(np.int8)
    return replace(op, bias=bias, weight=weight, weight_scale=op.weight_scale * factor)
