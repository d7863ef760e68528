"""The NSR table: every subnet of a block is quantized and evaluated by its deployed integers, as a tree of prefixes.

Layer i of a subnet depends on layers 1..i only, and so do its batch-norm statistics, its equalized weights, its
calibration ranges, its rounded weights, its corrected biases and its integer activations. A depth-first traversal
of the prefix tree therefore shares all of them: for four layers 6 + 36 + 216 + 1296 layer evaluations instead of
4 x 1296, with the same numbers bit for bit. All bit widths are evaluated together: they share batch norms, float maps,
ranges and, where rounding is adaptive, the Gram matrices of each layer's input.

Memory, for a block of n layers at W widths, however many subnets it has: n + 1 float32 maps of the calibration images;
1 + n W int8 maps of the evaluation images (and of the calibration images, with bias correction); and the activations
inside one layer, for all calibration images and for `batch` evaluation images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.networks.blocks import SuperBlock, recalibrate
from nas.noise import BlockNoise, NsrReference
from nas.quant import float_graph, simulate
from nas.quant.bias_correction import correct_biases
from nas.quant.float_graph import INPUT, Node, Weighted
from nas.quant.folding import fold_mbconv
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator
from nas.quant.lower import lower_nodes, parameters_of
from nas.quant.post_training import grams_to_round, layers_to_round, prepared, rounded
from nas.quant.ranges import Parameters, observe, observer_of, tie
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.simulate import Applied
from nas.space import Choice, Subnet

At = Callable[[Sequence[Node], int], list[Node]]  # from a layer's nodes and one of the tree's widths to nodes with bits
BATCH = 2  # evaluation images at a time: their widest maps stay in the cache; 32 take twice as long (table1, block 5)


def _at(nodes: Sequence[Node], bits: int) -> list[Node]:
    return [replace(node, bits=bits) if isinstance(node, Weighted) else node for node in nodes]


@dataclass(frozen=True, eq=False)
class BlockData:
    """What a block is evaluated on: the teacher's maps before (x) and after it (target), (N, C, H, W).

    `x_calibration` sets batch-norm statistics and ranges; `x_evaluation` and `target` give the NSR, and `weights` (C,)
    what each channel counts in the weighted one.
    """

    x_calibration: Tensor
    x_evaluation: Tensor
    target: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EvaluatedSubnet:
    """One quantized subnet: its noise, its integers, and its expected output for the golden input (1, H, W, C)."""

    subnet: Subnet
    noise: BlockNoise
    graph: IntegerGraph
    golden_output: NDArray[np.int8 | np.int32]

    @property
    def nsr(self) -> float:
        return self.noise.nsr


@dataclass(frozen=True, eq=False)
class Integers:
    """A prefix at one weight bit width; maps are int8 (N, C, H, W)."""

    operators: tuple[Operator, ...]
    q: Tensor | None  # of the evaluation images, where subnets are evaluated
    q_calibration: Tensor | None  # of the calibration images, where biases are corrected


@dataclass(frozen=True, eq=False)
class Prefix:
    """A node of the prefix tree, some layers deep: what all bit widths share, and the integers of each."""

    choices: tuple[Choice, ...]
    name: str  # of the last tensor
    x: Tensor  # float calibration map
    tensors: dict[str, IntTensor]
    widths: Mapping[int, Integers]

    def graph(self, bits: int) -> IntegerGraph:
        return IntegerGraph(self.tensors, self.widths[bits].operators, INPUT)


def source_tensor(x: Tensor, scheme: Scheme = DEFAULT) -> IntTensor:
    """A block's input tensor: a map (N, C, H, W) that enters it, with its calibrated range."""
    _, channels, height, width = x.shape
    ranges = {INPUT: observe(x, INPUT, observer_of(scheme.observer))}
    return IntTensor(INPUT, (height, width, channels), *parameters_of(ranges)[INPUT])


def block_input(data: BlockData, scheme: Scheme = DEFAULT) -> IntTensor:
    """The block's input tensor: the teacher's map with its calibrated range."""
    return source_tensor(data.x_calibration, scheme)


def golden_input(data: BlockData, scheme: Scheme = DEFAULT) -> NDArray[np.int8 | np.int32]:
    """The first evaluation image's integers as the runtime takes them, (1, H, W, C)."""
    return simulate.as_nhwc(simulate.quantize(data.x_evaluation[:1], block_input(data, scheme)))


def evaluate(
    supernet: SuperBlock,
    data: BlockData,
    wanted: Iterable[Subnet],
    scheme: Scheme = DEFAULT,
    batch: int = BATCH,
    *,
    applied: Applied = simulate.apply,
    at: At = _at,
) -> Iterator[EvaluatedSubnet]:
    """Evaluate the subnets in `wanted`, of one block and any bit widths, in one depth-first traversal.

    Evaluation images are run `batch` at a time, by the kernels `applied`. Batch norms are recalibrated on the way (they
    are overwritten in `supernet`). `at` gives layers other bits than their subnet's (`nas.lcpaq.blocks`).
    """
    wanted = list(wanted)
    source = block_input(data, scheme)
    tree = Tree(supernet, scheme, batch, applied, at)
    target = NsrReference(data.target, data.weights)
    root = tree.root(data.x_calibration, source, widths_of(wanted), data.x_evaluation)
    for leaf, subnet in tree.traverse(root, wanted):
        q, tensor = leaf.widths[subnet.bits].q, leaf.tensors[leaf.name]
        assert q is not None  # noqa: S101 (for the type checker)
        noise = target.noise(simulate.dequantize(part.float(), tensor) for part in batches(q, batch))
        evaluated = EvaluatedSubnet(subnet, noise, leaf.graph(subnet.bits), simulate.as_nhwc(q[:1]))
        del leaf, q  # or their maps would stay while the next leaf's are made
        yield evaluated


def evaluate_all(
    supernet: SuperBlock,
    data: BlockData,
    bits: int,
    scheme: Scheme = DEFAULT,
    done: Collection[Subnet] = (),
) -> Iterator[EvaluatedSubnet]:
    """`evaluate` for every subnet of the block at one bit width, except those in `done`."""
    known = frozenset(done)
    return evaluate(supernet, data, (s for s in supernet.space.subnets(supernet.block, bits) if s not in known), scheme)


def graphs(
    supernet: SuperBlock, x: Tensor, size: tuple[int, int], wanted: Sequence[Subnet], scheme: Scheme = DEFAULT
) -> Iterator[tuple[Subnet, IntegerGraph]]:
    """The integers of the subnets in `wanted`, of one block and any bit widths, depth first and not evaluated.

    Calibrated on maps `x` (N, C, h, w), and made for maps of another `size` (H, W) where that differs.
    Batch norms are recalibrated on the way (they are overwritten in `supernet`).
    """
    source = source_tensor(x, scheme)
    tree = Tree(supernet, scheme)
    root = tree.root(x, replace(source, shape=(*size, source.shape[2])), widths_of(wanted))
    for leaf, subnet in tree.traverse(root, wanted):
        yield subnet, leaf.graph(subnet.bits)


def widths_of(subnets: Iterable[Subnet]) -> list[int]:
    return sorted({subnet.bits for subnet in subnets})


@dataclass(frozen=True, eq=False)
class Tree:
    """One block's tree of prefixes: the settings of a traversal."""

    supernet: SuperBlock
    scheme: Scheme = DEFAULT
    batch: int = BATCH
    applied: Applied = simulate.apply
    at: At = _at

    def root(self, x: Tensor, source: IntTensor, widths: Iterable[int], evaluation: Tensor | None = None) -> Prefix:
        """No layer yet: the calibration maps `x` and, where subnets are evaluated, those of the evaluation images."""
        q = None if evaluation is None else self._streamed(evaluation, lambda part: simulate.quantize(part, source))
        q_calibration = simulate.quantize(x, source).to(torch.int8) if self.scheme.bias_correction else None
        return Prefix((), INPUT, x, {INPUT: source}, dict.fromkeys(widths, Integers((), q, q_calibration)))

    def traverse(self, prefix: Prefix, wanted: Sequence[Subnet]) -> Iterator[tuple[Prefix, Subnet]]:
        """The subnets in `wanted`, all below `prefix`, each with its leaf."""
        depth = len(prefix.choices)
        if depth == len(self.supernet.layers):
            for subnet in wanted:
                yield prefix, subnet
            return
        for choice in self.supernet.space.choices:
            below = [subnet for subnet in wanted if subnet.choices[depth] == choice]
            if below:
                yield from self.traverse(self.extend(prefix, choice, widths_of(below)), below)

    @torch.no_grad()
    def extend(self, prefix: Prefix, choice: Choice, widths: Iterable[int]) -> Prefix:
        """The prefix with one more layer, at some of its bit widths."""
        depth = len(prefix.choices)
        layer = self.supernet.layer(depth, choice)
        recalibrate(layer, prefix.x)
        nodes = fold_mbconv(layer, f"b{self.supernet.block}/{depth}", prefix.name)
        return replace(self.append(prefix, nodes, widths, self.at), choices=(*prefix.choices, choice))

    @torch.no_grad()
    def append(self, prefix: Prefix, nodes: Sequence[Node], widths: Iterable[int], at: At) -> Prefix:
        """The prefix with `nodes` behind it, which read its last tensor; their weights' bits are those of `at`."""
        nodes = prepared(nodes, [{prefix.name: prefix.x}], self.scheme)
        env = {prefix.name: prefix.x}
        x = float_graph.run(nodes, env)
        observer = observer_of(self.scheme.observer)
        parameters = parameters_of(
            tie(nodes, {node.name: observe(env[node.name], node.name, observer) for node in nodes})
        )
        tensors = dict(prefix.tensors)  # lowering adds the same ones at every width
        with_bits = {bits: at(nodes, bits) for bits in widths}
        layers = set[str]().union(*(layers_to_round(nodes, self.scheme) for nodes in with_bits.values()))
        grams = grams_to_round(nodes, [{prefix.name: prefix.x}], layers)
        lowered = partial(self._lowered, prefix, parameters, tensors, grams)
        integers = {bits: lowered(with_bits[bits], bits=bits) for bits in with_bits}
        return Prefix(prefix.choices, nodes[-1].name, x, tensors, integers)

    def _lowered(
        self,
        prefix: Prefix,
        parameters: Mapping[str, Parameters],
        tensors: dict[str, IntTensor],
        grams: Mapping[str, Tensor],
        nodes: Sequence[Node],
        *,
        bits: int,
    ) -> Integers:
        """The layer's `nodes` in integers, and their outputs for the prefix's maps."""
        before, scheme = prefix.widths[bits], self.scheme
        on_grid = rounded(nodes, grams, scheme)
        operators = lower_nodes(on_grid, tensors, parameters, scheme.granularity, scheme.few_bits)
        q_calibration = None
        if before.q_calibration is not None:
            integers = [{prefix.name: before.q_calibration.float()}]
            operators = correct_biases(nodes, operators, tensors, [{prefix.name: prefix.x}], integers)
            q_calibration = integers[0][nodes[-1].name].to(torch.int8)
        q = None
        if before.q is not None:
            q = self._streamed(
                before.q, lambda part: simulate.simulate(operators, tensors, {prefix.name: part}, self.applied)
            )
        return Integers((*before.operators, *operators), q, q_calibration)

    def _streamed(self, maps: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function` of float32 maps (n, C, H, W), `batch` images at a time; its integers as int8."""
        return torch.cat([function(part.float()).to(torch.int8) for part in batches(maps, self.batch)])


def batches(maps: Tensor, count: int) -> Iterator[Tensor]:
    """Views of maps (N, C, H, W), `count` images at a time."""
    return (maps[i : i + count] for i in range(0, len(maps), count))
