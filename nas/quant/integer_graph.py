"""The record between quantization and everything that deploys: operators with integer tensors (numpy, pure).

The integer simulation, the TFLite writer and the ONNX writer all read it, so that what is scored and what
runs are the same numbers. Layout is TFLite's: feature maps (1, H, W, C), weights (O, k, k, I), depthwise
weights (1, k, k, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Activation: TypeAlias = Literal["none", "relu", "relu6"]


@dataclass(frozen=True)
class IntTensor:
    """A feature map: real = scale * (q - zero_point). `scale` is exactly representable in float32.

    `rank` is that of its shape in the deployed file: 2 is a 1 x 1 map there of shape (1, C), as at the end of a
    classifier, 3 a class map of shape (1, H, W).
    """

    name: str
    shape: tuple[int, int, int]  # H, W, C
    scale: float
    zero_point: int
    dtype: Literal["int8", "int32"] = "int8"
    rank: Literal[2, 3, 4] = 4

    @property
    def file_shape(self) -> tuple[int, ...]:
        """In the deployed file."""
        height, width, channels = self.shape
        return {2: (1, channels), 3: (1, height, width), 4: (1, height, width, channels)}[self.rank]


@dataclass(frozen=True, eq=False)
class QConv:
    """SAME convolution, perhaps depthwise: accumulate in int32, requantize, clamp to the activation."""

    name: str
    x: str
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]  # (O,) per channel, (1,) per tensor
    bias: NDArray[np.int32]
    stride: int
    dilation: int
    depthwise: bool
    activation: Activation
    bits: int
    offset: NDArray[np.int8] | None = None  # the lowest integer of each scale's weights; None: symmetric ones

    @property
    def size_bits(self) -> int:
        """Weights packed at their width, offsets at 8 bits, biases at 32."""
        return _size_bits(self)

    def macs(self, output: IntTensor) -> int:
        per_position = self.weight.size  # each weight meets each output position once
        return int(per_position) * output.shape[0] * output.shape[1]


@dataclass(frozen=True, eq=False)
class QFullyConnected:
    """A 1 x 1 map (as a vector) times `weight` (O, I); requantized as a convolution is."""

    name: str
    x: str
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]  # (O,) per channel, (1,) per tensor
    bias: NDArray[np.int32]
    activation: Activation
    bits: int
    offset: NDArray[np.int8] | None = None  # as a convolution's

    @property
    def size_bits(self) -> int:
        return _size_bits(self)

    def macs(self, _output: IntTensor) -> int:
        return int(self.weight.size)


@dataclass(frozen=True)
class QAdd:
    """The sum, requantized and clamped to the activation."""

    name: str
    a: str
    b: str
    activation: Activation = "none"


@dataclass(frozen=True)
class QMean:
    """Mean over height and width, kept as 1 x 1."""

    name: str
    x: str


@dataclass(frozen=True)
class QAveragePool:
    """Mean of `kernel` x `kernel` windows, unpadded (VALID); scale and zero point unchanged."""

    name: str
    x: str
    kernel: int
    stride: int


@dataclass(frozen=True)
class QMaxPool:
    """The largest of `kernel` x `kernel` windows, padded as SAME; scale and zero point unchanged."""

    name: str
    x: str
    kernel: int
    stride: int


@dataclass(frozen=True)
class QPad:
    """(before, after) rows and columns of zeros; scale and zero point unchanged."""

    name: str
    x: str
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class QReshape:
    """The same values in the deployed order, in the output's rank: a map as a vector, or a class map as a map of one
    channel.
    """

    name: str
    x: str


@dataclass(frozen=True)
class QSoftmax:
    """Over the channels; the output has scale 1/256 and zero point -128."""

    name: str
    x: str


@dataclass(frozen=True)
class QResize:
    """Bilinear with half-pixel centres to the output's height and width; scale and zero point unchanged."""

    name: str
    x: str


@dataclass(frozen=True)
class QNearest:
    """A class map at the output's height and width, each class from the nearest position, with half-pixel centres."""

    name: str
    x: str


@dataclass(frozen=True)
class QConcat:
    """Along the channels; all inputs and the output share one scale and zero point."""

    name: str
    xs: tuple[str, ...]


@dataclass(frozen=True)
class QArgMax:
    """Index of the largest channel, as int32; the first one on a tie."""

    name: str
    x: str


Weighted = QConv | QFullyConnected
Operator = (
    QConv
    | QFullyConnected
    | QAdd
    | QMean
    | QAveragePool
    | QMaxPool
    | QPad
    | QReshape
    | QSoftmax
    | QResize
    | QNearest
    | QConcat
    | QArgMax
)


def _size_bits(op: Weighted) -> int:
    offsets = 0 if op.offset is None else int(op.offset.size)
    return int(op.weight.size) * op.bits + offsets * 8 + int(op.bias.size) * 32


def reads(operator: Operator) -> tuple[str, ...]:
    """The names of the feature maps that an operator reads."""
    if isinstance(operator, QAdd):
        return (operator.a, operator.b)
    return operator.xs if isinstance(operator, QConcat) else (operator.x,)


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """Operators in execution order; `tensors` holds the input and each operator's result, by name."""

    tensors: dict[str, IntTensor]
    operators: tuple[Operator, ...]
    input: str

    @property
    def output(self) -> str:
        return self.operators[-1].name

    @property
    def size_bits(self) -> int:
        return sum(op.size_bits for op in self.operators if isinstance(op, Weighted))

    @property
    def macs(self) -> int:
        return sum(op.macs(self.tensors[op.name]) for op in self.operators if isinstance(op, Weighted))

    def until(self, name: str) -> IntegerGraph:
        """The graph cut after the operator `name`."""
        names = [op.name for op in self.operators]
        return IntegerGraph(self.tensors, self.operators[: names.index(name) + 1], self.input)
