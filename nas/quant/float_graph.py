"""Float networks as a list of operators: what calibration runs and quantization reads.

Tensors are named; feature maps are (N, C, H, W), vectors (N, C, 1, 1) (`nas.quant.file_order`). A node's result has
the node's name. Here are the layers with weights and the list itself; other operators are in `elementwise` and
`rearranging`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import ACTIVATIONS, ActivationName, conv_same
from nas.quant.elementwise import (
    Add,
    Arithmetic,
    Clip,
    Const,
    Elementwise,
    HardSwish,
    LeakyRelu,
    Mul,
    PRelu,
    Sigmoid,
    Sub,
    Tanh,
)
from nas.quant.file_order import dimension, reshaped
from nas.quant.rearranging import (
    AveragePool,
    Concat,
    DepthToSpace,
    MaxPool,
    Pad,
    Rearranging,
    Reshape,
    Resize,
    Slice,
    SpaceToDepth,
    Transpose,
)
from nas.quant.windows import UNPADDED, Padding, Pads, Pair, Window, pair

__all__ = [
    "INPUT",
    "Add",
    "ArgMax",
    "Arithmetic",
    "AveragePool",
    "Clip",
    "Concat",
    "Const",
    "Conv",
    "DepthToSpace",
    "Elementwise",
    "FullyConnected",
    "Grid",
    "HardSwish",
    "LeakyRelu",
    "MaxPool",
    "Mean",
    "Mul",
    "Node",
    "PRelu",
    "Pad",
    "Rearranging",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Sub",
    "Tanh",
    "Transpose",
    "TransposedConv",
    "Weighted",
    "activated",
    "inputs_of",
    "last_reads",
    "run",
    "stepwise",
]
INPUT = "input"


def activated(y: Tensor, activation: ActivationName) -> Tensor:
    return ACTIVATIONS[activation](y)


IN_PLACE: Mapping[ActivationName, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "relu": torch.relu_,
    "relu6": partial(F.relu6, inplace=True),
}


def _finished(y: Tensor, activation: ActivationName) -> Tensor:
    """`y`, which nobody else reads, activated: in its own memory, unless a gradient is wanted."""
    return activated(y, activation) if y.requires_grad else IN_PLACE[activation](y)


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
    """Convolution; weight (O, I/groups, k, k), bias (O,); the groups follow from the shapes.

    `bits` is the width its weights will have, `input_bits` that of the tensor that it reads. `grid` is what the weights
    were rounded to already (`nas.quant.adaptive_rounding`); None: nothing was decided yet.
    """

    name: str
    x: str
    weight: Tensor
    bias: Tensor
    stride: Pair = 1
    dilation: Pair = 1
    activation: ActivationName = "none"
    bits: int = 8
    input_bits: int = 8
    grid: Grid | None = None
    padding: Padding = "same"

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.dilation, self.padding)

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x = env[self.x]
        as_searched = self.kernel[0] == self.kernel[1] and self.kernel[0] % 2
        if as_searched and self.padding == "same" and isinstance(self.stride, int) and isinstance(self.dilation, int):
            return _finished(conv_same(x, self.weight, self.bias, self.stride, self.dilation), self.activation)
        groups = x.shape[1] // self.weight.shape[1]
        y = F.conv2d(self.window.padded(x), self.weight, self.bias, pair(self.stride), 0, pair(self.dilation), groups)
        return _finished(y, self.activation)


@dataclass(frozen=True, eq=False)
class TransposedConv:
    """The gradient of a convolution as a layer; weight (O, I, k, k), bias (O,).

    `padding` is cut off the (input - 1) stride + k rows and columns; below zero, it is added at the bottom and right.
    """

    name: str
    x: str
    weight: Tensor
    bias: Tensor
    stride: Pair = 1
    padding: Pads = UNPADDED
    activation: ActivationName = "none"
    bits: int = 8
    input_bits: int = 8
    grid: Grid | None = None

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        y = F.conv_transpose2d(env[self.x], self.weight.transpose(0, 1), None, pair(self.stride))
        top, bottom, left, right = self.padding
        y = F.pad(y, (-left, -right, -top, -bottom)) + self.bias[:, None, None]
        return _finished(y, self.activation)


@dataclass(frozen=True, eq=False)
class FullyConnected:
    """Weight (O, I) times a 1 x 1 map or a vector, plus bias (O,): a vector; times the last axis of other tensors."""

    name: str
    x: str
    weight: Tensor
    bias: Tensor
    activation: ActivationName = "none"
    bits: int = 8
    input_bits: int = 8
    grid: Grid | None = None

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x = env[self.x]
        y = F.linear(x.flatten(1) if x.ndim == 4 else x, self.weight, self.bias)
        return _finished(y[:, :, None, None] if x.ndim == 4 else y, self.activation)


@dataclass(frozen=True)
class Mean:
    """Mean over `axes` of the file's order, by default a map's columns and rows, which are kept as 1 x 1."""

    name: str
    x: str
    axes: tuple[int, ...] = (-3, -2)
    keep_dims: bool = True

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x = env[self.x]
        y = x.mean(tuple(dimension(x, axis) for axis in self.axes), keepdim=True)
        if self.keep_dims:
            return y
        kept = [axis for axis in range(1 - x.ndim, 0) if axis not in self.axes]
        return reshaped(y, [y.shape[dimension(y, axis)] for axis in kept])


@dataclass(frozen=True)
class Softmax:
    """Over the last axis: a map's or a vector's channels."""

    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].softmax(dimension(env[self.x], -1))


@dataclass(frozen=True)
class ArgMax:
    """The index of the largest element along `axis`, which is kept: class map (N, 1, H, W)."""

    name: str
    x: str
    axis: int = -1

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].argmax(dimension(env[self.x], self.axis), keepdim=True)


Weighted = Conv | TransposedConv | FullyConnected
Node = Weighted | Rearranging | Elementwise | Const | Mean | Softmax | ArgMax


def inputs_of(node: Node) -> tuple[str, ...]:
    """The names of the tensors that a node reads."""
    if isinstance(node, Const):
        return ()
    if isinstance(node, Arithmetic):
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
