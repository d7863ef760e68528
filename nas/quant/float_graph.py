"""Folded float networks as a list of operators: what calibration runs and quantization reads.

Tensors are named; feature maps are (N, C, H, W). A node's result carries the node's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import ACTIVATIONS, ActivationName, ConvBN, MBConv, conv_same, max_pool_same
from nas.space import Architecture
from nas.networks.segmenter import Encoder, Segmenter, upsampled

INPUT = "input"


def activated(y: Tensor, activation: ActivationName) -> Tensor:
    return ACTIVATIONS[activation](y)


@dataclass(frozen=True, eq=False)
class Conv:
    """SAME convolution; weight (O, I/groups, k, k), bias (O,).

    `bits` is the width its weights will have, `input_bits` that of the tensor that it reads.
    """

    name: str
    x: str
    weight: Tensor
    bias: Tensor
    stride: int = 1
    dilation: int = 1
    activation: ActivationName = "none"
    bits: int = 8
    input_bits: int = 8

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        y = conv_same(env[self.x], self.weight, self.bias, self.stride, self.dilation)
        return activated(y, self.activation)


@dataclass(frozen=True, eq=False)
class FullyConnected:
    """A 1 x 1 map times weight (O, I), plus bias (O,); the result is a vector, here (N, O, 1, 1)."""

    name: str
    x: str
    weight: Tensor
    bias: Tensor
    activation: ActivationName = "none"
    bits: int = 8
    input_bits: int = 8

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        y = F.linear(env[self.x].flatten(1), self.weight, self.bias)[:, :, None, None]
        return activated(y, self.activation)


@dataclass(frozen=True)
class Add:
    name: str
    a: str
    b: str
    activation: ActivationName = "none"

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return activated(env[self.a] + env[self.b], self.activation)


@dataclass(frozen=True)
class Mean:
    """Mean over height and width, kept as 1 x 1."""

    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].mean((2, 3), keepdim=True)


@dataclass(frozen=True)
class AveragePool:
    """Mean of `kernel` x `kernel` windows, unpadded (VALID)."""

    name: str
    x: str
    kernel: int
    stride: int

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return F.avg_pool2d(env[self.x], self.kernel, self.stride)


@dataclass(frozen=True)
class MaxPool:
    """The largest of `kernel` x `kernel` windows, padded as TFLite's SAME (which no padding wins)."""

    name: str
    x: str
    kernel: int
    stride: int

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return max_pool_same(env[self.x], self.kernel, self.stride)


@dataclass(frozen=True)
class Pad:
    """(before, after) rows and columns of zeros."""

    name: str
    x: str
    rows: tuple[int, int]
    columns: tuple[int, int]

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return F.pad(env[self.x], (*self.columns, *self.rows))


@dataclass(frozen=True)
class Flatten:
    """A vector in the deployed order (H, W, C), here (N, H W C, 1, 1)."""

    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].permute(0, 2, 3, 1).flatten(1)[:, :, None, None]


@dataclass(frozen=True)
class Softmax:
    """Over the channels."""

    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].softmax(1)


@dataclass(frozen=True)
class Resize:
    """Bilinear, half-pixel centres, to (height, width)."""

    name: str
    x: str
    size: tuple[int, int]

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return upsampled(env[self.x], self.size)


@dataclass(frozen=True)
class Concat:
    name: str
    xs: tuple[str, ...]

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([env[x] for x in self.xs], 1)


@dataclass(frozen=True)
class ArgMax:
    """Class map (N, 1, H, W)."""

    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].argmax(1, keepdim=True)


Weighted = Conv | FullyConnected
Rearranging = AveragePool | MaxPool | Pad | Flatten | Resize | Concat
"""Kernels that cannot rescale: what they read and their result share one scale and zero point."""
Node = Weighted | Rearranging | Add | Mean | Softmax | ArgMax


def inputs_of(node: Node) -> tuple[str, ...]:
    """The names of the tensors that a node reads."""
    if isinstance(node, Add):
        return (node.a, node.b)
    return node.xs if isinstance(node, Concat) else (node.x,)


def run(nodes: Iterable[Node], env: dict[str, Tensor]) -> Tensor:
    """Run `nodes` in order; every tensor is left in `env`; the last one is returned."""
    with torch.no_grad():
        for node in nodes:
            env[node.name] = node(env)
    return env[node.name]


def last_reads(nodes: Sequence[Node]) -> list[list[str]]:
    """For each node, the tensors that no later node reads: they can go once it has run."""
    last = {name: i for i, node in enumerate(nodes) for name in inputs_of(node)}
    return [[name for name in dict.fromkeys(inputs_of(node)) if last[name] == i] for i, node in enumerate(nodes)]


def stepwise(nodes: Sequence[Node], env: Mapping[str, Tensor]) -> Iterator[tuple[Node, Tensor]]:
    """Each node with its result, in order; memory stays at the widest cut of the graph. `env` is left alone."""
    env = dict(env)
    for node, done in zip(nodes, last_reads(nodes), strict=True):
        y = node(env)
        yield node, y
        env[node.name] = y
        for name in done:
            del env[name]


def fold_conv(conv: ConvBN, name: str, x: str, bits: int = 8) -> Conv:
    weight, bias = conv.folded()
    return Conv(name, x, weight, bias, conv.stride, conv.dilation, conv.activation, bits)


def fold_mbconv(layer: MBConv, name: str, x: str, bits: int = 8) -> list[Node]:
    """The operators of one MBConv; the last one's result is what the next layer reads."""
    nodes: list[Node] = []
    last = x
    for part, conv in layer.convolutions().items():
        nodes.append(fold_conv(conv, f"{name}/{part}", last, bits))
        last = nodes[-1].name
    if layer.residual:
        nodes.append(Add(f"{name}/add", x, last))
    return nodes


def fold_layers(layers: Iterable[MBConv], name: str, x: str, bits: int = 8) -> list[Node]:
    """The operators of a block's layers, named `{name}/{layer}/...`."""
    nodes: list[Node] = []
    for i, layer in enumerate(layers):
        nodes += fold_mbconv(layer, f"{name}/{i}", nodes[-1].name if nodes else x, bits)
    return nodes


def fold_encoder(model: Encoder, architecture: Architecture | None = None) -> list[Node]:
    """From the image to the last block's map; block weights in `architecture`'s bits."""
    nodes: list[Node] = [fold_conv(model.stem, "stem", INPUT)]
    nodes += fold_mbconv(model.first, "first", "stem")
    for i, block in enumerate(model.blocks):
        bits = architecture.subnets[i].bits if architecture else 8
        layers = [layer for layer in block.children() if isinstance(layer, MBConv)]
        nodes += fold_layers(layers, f"b{i + 1}", nodes[-1].name, bits)
    return nodes


def fold_segmenter(model: Segmenter, size: tuple[int, int], architecture: Architecture | None = None) -> list[Node]:
    """The whole network from the image to the class map at `size`; block weights in `architecture`'s bits."""
    nodes = fold_encoder(model, architecture)
    head, x = model.head, nodes[-1].name
    stride = model.space.output_stride
    map_size = (-(-size[0] // stride), -(-size[1] // stride))
    branches: list[Node] = [fold_conv(head.pointwise, "head/pointwise", x)]
    for i, branch in enumerate(head.dilated):
        assert isinstance(branch, ConvBN)  # noqa: S101 (for the type checker)
        branches.append(fold_conv(branch, f"head/dilated{i}", x))
    pooled: list[Node] = [
        Mean("head/mean", x),
        fold_conv(head.pooled, "head/pooled", "head/mean"),
        Resize("head/broadcast", "head/pooled", map_size),
    ]
    classifier = head.classifier
    assert classifier.bias is not None  # noqa: S101
    return [
        *nodes,
        *branches,
        *pooled,
        Concat("head/concat", (*(node.name for node in branches), "head/broadcast")),
        fold_conv(head.bottleneck, "head/bottleneck", "head/concat"),
        Conv("logits", "head/bottleneck", classifier.weight.detach(), classifier.bias.detach()),
        Resize("upsampled", "logits", size),
        ArgMax("classes", "upsampled"),
    ]
