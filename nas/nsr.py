"""The NSR table: every subnet of a block quantized and judged by its deployed integers, as a tree of prefixes.

Layer i of a subnet depends on layers 1..i only, and so do its batch-norm statistics, its equalized weights, its
calibration ranges, its quantized weights, its corrected biases and its integer activations. A depth-first walk
over prefixes therefore shares all of them: 6 + 36 + 216 + 1296 layer evaluations instead of 4 x 1296, with the
same numbers bit for bit. Memory: two feature maps a level, three with bias correction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.blocks import SuperBlock, recalibrate
from nas.distil import channel_variance, nsr
from nas.quant import float_graph, simulate
from nas.quant.bias_correction import correct_biases
from nas.quant.float_graph import INPUT
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator
from nas.quant.lower import lower_nodes, parameters_of
from nas.quant.post_training import prepared
from nas.quant.ranges import OBSERVERS, observe
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Choice, Subnet


@dataclass(frozen=True, eq=False)
class BlockData:
    """What a block is judged on: the teacher's maps before (x) and after it (target), (N, C, H, W).

    `x_calibration` sets batch-norm statistics and ranges; `x_evaluation` and `target` give the NSR.
    """

    x_calibration: Tensor
    x_evaluation: Tensor
    target: Tensor


@dataclass(frozen=True, eq=False)
class Judged:
    """One quantized subnet: its NSR, its integers, and what it must answer to the golden input (1, H, W, C)."""

    subnet: Subnet
    nsr: float
    graph: IntegerGraph
    golden_output: NDArray[np.int8 | np.int32]


@dataclass(frozen=True, eq=False)
class _Prefix:
    """A walk's state after some layers."""

    choices: tuple[Choice, ...]
    name: str  # of the last tensor
    x: Tensor  # float calibration map
    q: Tensor | None  # integer evaluation map, where subnets are judged
    q_calibration: Tensor | None  # integer calibration map, where biases are corrected
    tensors: dict[str, IntTensor]
    operators: tuple[Operator, ...]

    @property
    def graph(self) -> IntegerGraph:
        return IntegerGraph(self.tensors, self.operators, INPUT)


def source_tensor(x: Tensor, scheme: Scheme = DEFAULT) -> IntTensor:
    """A block's input tensor: a map (N, C, H, W) that enters it, with its calibrated range."""
    _, channels, height, width = x.shape
    ranges = {INPUT: observe(x, INPUT, OBSERVERS[scheme.observer])}
    return IntTensor(INPUT, (height, width, channels), *parameters_of(ranges)[INPUT])


def block_input(data: BlockData, scheme: Scheme = DEFAULT) -> IntTensor:
    """The block's input tensor: the teacher's map with its calibrated range."""
    return source_tensor(data.x_calibration, scheme)


def golden_input(data: BlockData, scheme: Scheme = DEFAULT) -> NDArray[np.int8 | np.int32]:
    """The first evaluation image's integers as the runtime takes them, (1, H, W, C)."""
    return simulate.as_nhwc(simulate.quantize(data.x_evaluation[:1], block_input(data, scheme)))


def walk(
    supernet: SuperBlock,
    data: BlockData,
    bits: int,
    scheme: Scheme = DEFAULT,
    done: Collection[Subnet] = (),
) -> Iterator[Judged]:
    """Every subnet of a block at one bit width, but those in `done`, depth first.

    Batch norms are recalibrated on the way (they are overwritten in `supernet`).
    """
    known = frozenset(done)
    missing = [s.choices for s in supernet.space.subnets(supernet.block, bits) if s not in known]
    source = block_input(data, scheme)
    tree = _Tree(supernet, bits, scheme)
    root = tree.root(data.x_calibration, source, simulate.quantize(data.x_evaluation, source))
    variance = channel_variance(data.target)
    for leaf in tree.descend(root, missing):
        assert leaf.q is not None  # noqa: S101 (for the type checker)
        output = simulate.dequantize(leaf.q, leaf.tensors[leaf.name])
        value = float(nsr(data.target, output, variance))
        yield Judged(Subnet(supernet.block, leaf.choices, bits), value, leaf.graph, simulate.as_nhwc(leaf.q[:1]))


def graphs(
    supernet: SuperBlock, x: Tensor, size: tuple[int, int], wanted: Sequence[Subnet], scheme: Scheme = DEFAULT
) -> Iterator[tuple[Subnet, IntegerGraph]]:
    """The integers of the subnets in `wanted`, all of one block and bit width, depth first and unjudged.

    Calibrated on maps `x` (N, C, h, w), and made for maps of another `size` (H, W) where that differs.
    Batch norms are recalibrated on the way (they are overwritten in `supernet`).
    """
    (bits,) = {subnet.bits for subnet in wanted}
    source = source_tensor(x, scheme)
    tree = _Tree(supernet, bits, scheme)
    root = tree.root(x, replace(source, shape=(*size, source.shape[2])))
    for leaf in tree.descend(root, [subnet.choices for subnet in wanted]):
        yield Subnet(supernet.block, leaf.choices, bits), leaf.graph


@dataclass(frozen=True, eq=False)
class _Tree:
    """What stays the same along a walk."""

    supernet: SuperBlock
    bits: int
    scheme: Scheme

    def root(self, x: Tensor, source: IntTensor, q: Tensor | None = None) -> _Prefix:
        q_calibration = simulate.quantize(x, source) if self.scheme.bias_correction else None
        return _Prefix((), INPUT, x, q, q_calibration, {INPUT: source}, ())

    def descend(self, prefix: _Prefix, missing: list[tuple[Choice, ...]]) -> Iterator[_Prefix]:
        """The leaves below `prefix`."""
        depth = len(prefix.choices)
        if depth == len(self.supernet.layers):
            yield prefix
            return
        for choice in self.supernet.space.choices:
            below = [choices for choices in missing if choices[depth] == choice]
            if below:
                yield from self.descend(self.extend(prefix, choice), below)

    @torch.no_grad()
    def extend(self, prefix: _Prefix, choice: Choice) -> _Prefix:
        depth = len(prefix.choices)
        layer = self.supernet.layer(depth, choice)
        recalibrate(layer, prefix.x)
        nodes = float_graph.fold_mbconv(layer, f"b{self.supernet.block}/{depth}", prefix.name, self.bits)
        read = {prefix.name: prefix.x}
        nodes = prepared(nodes, [read], self.scheme)
        env = dict(read)
        x = float_graph.run(nodes, env)
        observer = OBSERVERS[self.scheme.observer]
        ranges = {node.name: observe(env[node.name], node.name, observer) for node in nodes}
        tensors = dict(prefix.tensors)
        operators = lower_nodes(nodes, tensors, parameters_of(ranges), self.scheme.granularity)
        q_calibration = None
        if prefix.q_calibration is not None:
            integers = [{prefix.name: prefix.q_calibration}]
            operators = correct_biases(nodes, operators, tensors, [read], integers)
            (q_calibration,) = (of_batch[nodes[-1].name] for of_batch in integers)
        q = None if prefix.q is None else simulate.simulate(operators, tensors, {prefix.name: prefix.q})
        choices, operators = (*prefix.choices, choice), [*prefix.operators, *operators]
        return _Prefix(choices, nodes[-1].name, x, q, q_calibration, tensors, tuple(operators))
