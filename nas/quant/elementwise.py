"""Float operators on single elements: arithmetic with what is broadcast, and activations that no layer can fuse.

Operands are broadcast as numpy does, in the file's order: a vector (N, C) meets a map in its channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import ACTIVATIONS, ActivationName


@dataclass(frozen=True, eq=False)
class Const:
    """`value`, with a batch of 1 in front and laid out as a result: (1, C, H, W) of a map."""

    name: str
    value: Tensor

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        return self.value


@dataclass(frozen=True)
class Add:
    name: str
    a: str
    b: str
    activation: ActivationName = "none"

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return ACTIVATIONS[self.activation](env[self.a] + env[self.b])


@dataclass(frozen=True)
class Sub:
    name: str
    a: str
    b: str
    activation: ActivationName = "none"

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return ACTIVATIONS[self.activation](env[self.a] - env[self.b])


@dataclass(frozen=True)
class Mul:
    name: str
    a: str
    b: str
    activation: ActivationName = "none"

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return ACTIVATIONS[self.activation](env[self.a] * env[self.b])


@dataclass(frozen=True)
class Clip:
    """To `low` and `high`, either of which may be infinite; (0, inf) is RELU, (0, 6) is RELU6."""

    name: str
    x: str
    low: float
    high: float

    @property
    def activation(self) -> ActivationName | None:
        """What a layer fuses instead."""
        fused: dict[tuple[float, float], ActivationName] = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}
        return fused.get((self.low, self.high))

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].clamp(self.low, self.high)


@dataclass(frozen=True)
class LeakyRelu:
    """`alpha` times what is negative."""

    name: str
    x: str
    alpha: float

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return F.leaky_relu(env[self.x], self.alpha)


@dataclass(frozen=True, eq=False)
class PRelu:
    """`slope` times what is negative; it is laid out and broadcast as a `Const`."""

    name: str
    x: str
    slope: Tensor

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        x = env[self.x]
        return x.clamp(min=0) + self.slope * x.clamp(max=0)


@dataclass(frozen=True)
class Sigmoid:
    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].sigmoid()


@dataclass(frozen=True)
class HardSwish:
    """x RELU6(x + 3) / 6."""

    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return F.hardswish(env[self.x])


@dataclass(frozen=True)
class Tanh:
    name: str
    x: str

    def __call__(self, env: Mapping[str, Tensor]) -> Tensor:
        return env[self.x].tanh()


Arithmetic = Add | Sub | Mul
Unary = Clip | LeakyRelu | PRelu | Sigmoid | HardSwish | Tanh
Elementwise = Arithmetic | Unary
