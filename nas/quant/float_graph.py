"""Float networks as a list of operators: what calibration runs and quantization reads.

Tensors are named; feature maps are (N, C, H, W). A node's result has the node's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import ACTIVATIONS, ActivationName, conv_same, max_pool_same
from nas.networks.segmenter import upsampled

INPUT = "input"


def activated(y: Tensor, activation: ActivationName) -> Tensor:
    return ACTIVATIONS[activation](y)


@dataclass(frozen=True, eq=False)
class Grid:
    """The integers that a layer's weights may take: real = scale * q, low <= q <= low + steps, within int8.

    `scale` (float32) and `low` are (O,), or (1,) for the entire tensor.
    """

    scale: Tensor
    low: Tensor
    steps: int


@dataclass(frozen=True, eq=False)
class Conv:
    """SAME convolution; weight (O, I/groups, k, k), bias (O,).

    `bits` is the width its weights will have, `input_bits` that of the tensor that it reads. `grid` is what the weights
    were rounded to already (`nas.quant.adaptive_rounding`); None: nothing was decided yet.
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
    grid: Grid | None = None

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
    grid: Grid | None = None

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
    """The largest of `kernel` x `kernel` windows, padded as TFLite's SAME; padding is never the largest."""

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
"""Kernels that cannot rescale: their inputs and their result share one scale and zero point."""
Node = Weighted | Rearranging | Add | Mean | Softmax | ArgMax


def inputs_of(node: Node) -> tuple[str, ...]:
    """The names of the tensors that a node reads."""
    if isinstance(node, Add):
        return (node.a, node.b)
    return node.xs if isinstance(node, Concat) else (node.x,)


def run(nodes: Iterable[Node], env: dict[str, Tensor]) -> Tensor:
    """Run `nodes` in order; every result is stored in `env`; the last one is returned."""
    with torch.no_grad():
        for node in nodes:
            env[node.name] = node(env)
    return env[node.name]


def last_reads(nodes: Sequence[Node]) -> list[list[str]]:
    """For each node, the tensors that no later node reads: they can be freed once it has run."""
    last = {name: i for i, node in enumerate(nodes) for name in inputs_of(node)}
    return [[name for name in dict.fromkeys(inputs_of(node)) if last[name] == i] for i, node in enumerate(nodes)]


def stepwise(nodes: Sequence[Node], env: Mapping[str, Tensor]) -> Iterator[tuple[Node, Tensor]]:
    """Each node with its result, in order; memory stays at the widest cut of the graph. `env` is not changed."""
    env = dict(env)
    for node, done in zip(nodes, last_reads(nodes), strict=True):
        y = node(env)
        yield node, y
        env[node.name] = y
        for name in done:
            del env[name]
