"""The same network in fewer nodes: constants folded into weights, activations into layers, padding into windows.

A rewrite gives a node that takes the place and the name of another one; what is no longer read goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from deploy.formats.importers.network import ImportedNetwork
from nas.networks.blocks import ActivationName
from nas.quant.float_graph import (
    Add,
    Arithmetic,
    AveragePool,
    Clip,
    Const,
    Conv,
    FullyConnected,
    HardSwish,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Reshape,
    Transpose,
    Weighted,
    inputs_of,
)
from nas.quant.shapes import Shape, shapes_of
from nas.quant.windows import UNPADDED, Window, pair

TOLERANCE = 1e-4  # of the constants in x RELU6(x + 3) / 6, as exporters round them


class _Graph:
    """Attributes:
    nodes: by name, in the order in which they run.
    readers: how often each tensor is read; once more if it is an output.
    shapes: of every tensor; they stay as they are.
    """

    def __init__(self, network: ImportedNetwork) -> None:
        self.nodes = {node.name: node for node in network.nodes}
        self.kept = {value.tensor for value in network.outputs.values()}
        self.readers = Counter(name for node in network.nodes for name in inputs_of(node))
        self.readers.update(self.kept)
        shape = network.input.deployed_shape
        self.shapes: Mapping[str, Shape] = shapes_of(network.nodes, (1, 1, *shape) if len(shape) == 1 else shape)

    def before(self, name: str) -> Node | None:
        """The node that makes `name`, if only one node reads it."""
        return self.nodes.get(name) if self.readers[name] == 1 else None

    def replace(self, node: Node) -> None:
        old = self.nodes[node.name]
        self.nodes[node.name] = node
        self.readers.update(inputs_of(node))
        self._release(old)

    def _release(self, node: Node) -> None:
        for name in inputs_of(node):
            self.readers[name] -= 1
            if not self.readers[name] and name in self.nodes:
                self._release(self.nodes[name])

    def needed(self) -> tuple[Node, ...]:
        wanted, needed = set(self.kept), []
        for node in reversed(list(self.nodes.values())):
            if node.name in wanted:
                wanted.update(inputs_of(node))
                needed.append(node)
        return tuple(needed[::-1])

    def per_channel(self, name: str, channels: int) -> Tensor | None:
        """The constant `name` as (C,), if it is one number for each channel or for all."""
        constant = self.nodes.get(name)
        if not isinstance(constant, Const) or constant.value.ndim != 4:
            return None
        value = constant.value
        per_channel = value.numel() in (1, channels) and value.shape[1] == value.numel()
        return value.reshape(-1).expand(channels) if per_channel else None

    def is_map(self, name: str) -> bool:
        """Whether it surely has rows and columns in the deployed file: (1, 1, C) may be a vector."""
        return len(self.shapes[name]) == 3 and self.shapes[name][:-1] != (1, 1)

    def scalar(self, name: str) -> float | None:
        constant = self.nodes.get(name)
        return float(constant.value) if isinstance(constant, Const) and constant.value.numel() == 1 else None


def fused(network: ImportedNetwork) -> ImportedNetwork:
    """`network` after all rewriting; its outputs keep their names and, up to rounding, their values."""
    graph = _Graph(network)
    for rewrite in REWRITES:
        for node in list(graph.nodes.values()):
            if graph.readers[node.name] and (new := rewrite(node, graph)) is not None:
                graph.replace(new)
    return replace(network, nodes=graph.needed())


def _arithmetic(node: Node, graph: _Graph) -> Node | None:
    """A sum, a difference or a product with a constant, or a depthwise 1 x 1 convolution, into the layer before it."""
    for x, factor, shift in _affine(node, graph):
        layer = graph.before(x)
        if isinstance(layer, Weighted) and layer.activation == "none":
            weight = layer.weight * factor.reshape(-1, *[1] * (layer.weight.ndim - 1))
            bias = layer.bias * factor + shift
            return replace(layer, name=node.name, weight=weight, bias=bias, activation=_activation_of(node))
    return None


def _scaled_and_shifted(node: Node, graph: _Graph) -> Node | None:
    """A product and then a sum with constants that no layer takes: one depthwise 1 x 1 convolution."""
    for scaled, one, shift in _affine(node, graph):
        before = graph.before(scaled)
        if isinstance(before, Mul) and before.activation == "none" and graph.is_map(node.name):
            for x, factor, _ in _affine(before, graph):
                weight = (factor * one).reshape(-1, 1, 1, 1)
                return Conv(node.name, x, weight, shift.contiguous(), activation=_activation_of(node), padding=UNPADDED)
    return None


def _activation_of(node: Node) -> ActivationName:
    return node.activation if isinstance(node, Weighted | Arithmetic) else "none"


def _affine(node: Node, graph: _Graph) -> Iterable[tuple[str, Tensor, Tensor]]:
    """(x, factor (C,), shift (C,)) where `node` is x times the one plus the other."""
    if isinstance(node, Conv) and node.window == Window((1, 1)) and _is_depthwise(node, graph):
        yield node.x, node.weight.reshape(-1), node.bias
    if not isinstance(node, Arithmetic):
        return
    for x, other in ((node.a, node.b), (node.b, node.a)):
        channels = graph.shapes[node.name][-1]
        constant = graph.per_channel(other, channels)
        if constant is None or graph.shapes[x] != graph.shapes[node.name]:
            continue
        one, zero = torch.ones_like(constant), torch.zeros_like(constant)
        if isinstance(node, Mul):
            yield x, constant, zero
        elif isinstance(node, Add):
            yield x, one, constant
        else:
            yield (x, one, -constant) if x == node.a else (x, -one, constant)


def _is_depthwise(node: Conv, graph: _Graph) -> bool:
    return node.weight.shape[1] == 1 and len(node.weight) == graph.shapes[node.x][-1]


def _hard_swish(node: Node, graph: _Graph) -> Node | None:
    """x RELU6(x + 3) / 6, wherever the division stands."""
    if not isinstance(node, Mul) or node.activation != "none":
        return None
    factors = [node.a, node.b]
    for i, name in enumerate(factors):
        part = graph.before(name)
        if isinstance(part, Mul) and part.activation == "none":
            factors[i : i + 1] = [part.a, part.b]
            break
    rest = [name for name in factors if not _near(graph.scalar(name), 1 / 6)]
    if len(factors) != 3 or len(rest) != 2:
        return None
    for x, gate in (rest, rest[::-1]):
        clip = graph.before(gate)
        if isinstance(clip, Clip) and clip.activation == "relu6":
            shifted = graph.before(clip.x)
            if isinstance(shifted, Add) and any(
                x == a and _near(graph.scalar(b), 3) for a, b in ((shifted.a, shifted.b), (shifted.b, shifted.a))
            ):
                return HardSwish(node.name, x)
    return None


def _near(number: float | None, wanted: float) -> bool:
    return number is not None and abs(number - wanted) < TOLERANCE


def _activation(node: Node, graph: _Graph) -> Node | None:
    """RELU and RELU6 into what they follow."""
    if not isinstance(node, Clip) or node.activation is None:
        return None
    before = graph.before(node.x)
    if isinstance(before, Weighted | Arithmetic) and before.activation == "none":
        return replace(before, name=node.name, activation=node.activation)
    return None


def _padding(node: Node, graph: _Graph) -> Node | None:
    """Zeros around a map into the convolution that reads it."""
    if not isinstance(node, Conv) or node.padding == "same":
        return None
    pad = graph.before(node.x)
    if not isinstance(pad, Pad) or pad.channels != (0, 0):
        return None
    top, bottom, left, right = node.padding
    (above, below), (before, after) = pad.rows, pad.columns
    return replace(node, x=pad.x, padding=(top + above, bottom + below, left + before, right + after))


def _whole_map(node: Node, graph: _Graph) -> Node | None:
    """One window as large as the map as a mean, which may have a finer scale than what it reads."""
    if not isinstance(node, AveragePool):
        return None
    height, width, _ = graph.shapes[node.x]
    whole = pair(node.kernel) == (height, width) and node.window.pads((height, width)) == UNPADDED
    return Mean(node.name, node.x) if whole else None


def _dropped_axes(node: Node, graph: _Graph) -> Node | None:
    """A mean whose axes of size 1 are then left out: without them."""
    mean = graph.before(node.x) if isinstance(node, Reshape) else None
    if not isinstance(node, Reshape) or not isinstance(mean, Mean) or not mean.keep_dims:
        return None
    shape = graph.shapes[mean.x]
    if len(shape) == 3 and not graph.is_map(mean.x):
        return None
    gone = {axis % len(shape) for axis in mean.axes}
    left = tuple(size for axis, size in enumerate(shape) if axis not in gone)
    return replace(mean, name=node.name, keep_dims=False) if left == node.shape else None


def _order_of_weights(node: Node, graph: _Graph) -> Node | None:
    """A transposition that a fully connected layer alone reads, flattened, into the order of its weights."""
    flat = graph.before(node.x) if isinstance(node, FullyConnected) else None
    turned = graph.before(flat.x) if isinstance(flat, Reshape) and len(flat.shape) == 1 else None
    if not isinstance(node, FullyConnected) or not isinstance(flat, Reshape) or not isinstance(turned, Transpose):
        return None
    sizes = graph.shapes[turned.x]
    order = (
        torch.arange(node.weight.shape[1]).reshape(sizes).permute([axis % len(sizes) for axis in turned.permutation])
    )
    weight = torch.empty_like(node.weight)
    weight[:, order.reshape(-1)] = node.weight
    graph.replace(replace(flat, x=turned.x))
    return replace(node, weight=weight)


def _same(node: Node, graph: _Graph) -> Node | None:
    """Padding in numbers that SAME would choose, as SAME."""
    if not isinstance(node, Conv | MaxPool | AveragePool) or node.padding == "same":
        return None
    height, width, _ = graph.shapes[node.x]
    same = replace(node.window, padding="same").pads((height, width))
    unpadded = isinstance(node, AveragePool) and node.padding == UNPADDED
    return replace(node, padding="same") if node.padding == same and not unpadded else None


REWRITES: tuple[Callable[[Node, _Graph], Node | None], ...] = (
    _arithmetic,
    _hard_swish,
    _scaled_and_shifted,
    _activation,
    _padding,
    _whole_map,
    _dropped_axes,
    _order_of_weights,
    _same,
)
"""From a node, and the graph as it is, to what takes its place; one after the other over all nodes."""
