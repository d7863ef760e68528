"""The record between quantization and everything that deploys: operators with integer tensors (numpy, pure).

The integer simulation, the TFLite writer and the ONNX writer all read it, so that what is scored and what
runs are the same numbers. Layout is TFLite's: feature maps (1, H, W, C), weights (O, k, k, I), depthwise
weights (1, k, k, O). Axes are counted from the last one: -1 are a map's channels, -2 its columns, -3 its rows.
Operators without a sum are in `integer_operators`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.quant.integer_operators import Pointwise, QConcat, QConstant, Rearranging
from nas.quant.rearranging import Coordinates, ResizeMode
from nas.quant.windows import UNPADDED, Padding, Pair, pair

Activation: TypeAlias = Literal["none", "relu", "relu6"]


@dataclass(frozen=True)
class IntTensor:
    """A feature map: real = scale * (q - zero_point). `scale` is exactly representable in float32.

    `rank` is that of its shape in the deployed file, where the batch is in front: 2 is a 1 x 1 map there of shape
    (1, C), as at the end of a classifier, 3 a class map of shape (1, H, W).
    """

    name: str
    shape: tuple[int, ...]  # H, W, C of a map
    scale: float
    zero_point: int
    dtype: Literal["int8", "int32"] = "int8"
    rank: int = 4

    @property
    def file_shape(self) -> tuple[int, ...]:
        """In the deployed file."""
        vector = self.rank == 2 and len(self.shape) == 3
        return (1, self.shape[2]) if vector else (1, *self.shape)[: self.rank]


@dataclass(frozen=True, eq=False)
class QConv:
    """Convolution, perhaps depthwise: accumulate in int32, requantize, clamp to the activation.

    One that reads more channels than its weights have is grouped.
    """

    name: str
    x: str
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]  # (O,) per channel, (1,) per tensor
    bias: NDArray[np.int32]
    stride: Pair
    dilation: Pair
    depthwise: bool
    activation: Activation
    bits: int
    offset: NDArray[np.int8] | None = None  # the lowest integer of each scale's weights; None: symmetric ones
    padding: Padding = "same"

    @property
    def size_bits(self) -> int:
        """Weights packed at their width, offsets at 8 bits, biases at 32."""
        return _size_bits(self)

    def macs(self, output: IntTensor) -> int:
        per_position = self.weight.size  # each weight meets each output position once
        return int(per_position) * output.shape[0] * output.shape[1]


@dataclass(frozen=True, eq=False)
class QTransposedConv:
    """The transpose of a convolution with this stride and padding; requantized as a convolution is.

    `padding` is cut off the full result, of (H - 1) * stride + kernel rows; SAME leaves H * stride of them.
    """

    name: str
    x: str
    weight: NDArray[np.int8]  # (O, k, k, I)
    weight_scale: NDArray[np.float32]  # (O,) per channel, (1,) per tensor
    bias: NDArray[np.int32]
    stride: Pair
    activation: Activation
    bits: int
    offset: NDArray[np.int8] | None = None  # as a convolution's
    padding: Padding = "same"

    @property
    def size_bits(self) -> int:
        return _size_bits(self)

    def macs(self, output: IntTensor) -> int:
        vertical, horizontal = pair(self.stride)  # each weight meets each input position once
        return int(self.weight.size) * -(-output.shape[0] // vertical) * -(-output.shape[1] // horizontal)


@dataclass(frozen=True, eq=False)
class QFullyConnected:
    """A 1 x 1 map (as a vector) times `weight` (O, I); requantized as a convolution is.

    Where the result is no vector, the last axis of a tensor of the same rank is multiplied.
    """

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

    def macs(self, output: IntTensor) -> int:
        return int(self.weight.shape[1]) * prod(output.shape)


@dataclass(frozen=True)
class QAdd:
    """The sum, requantized and clamped to the activation. Operands of one rank are broadcast as numpy does.

    So is a vector (rank 2) with a map.
    """

    name: str
    a: str
    b: str
    activation: Activation = "none"


@dataclass(frozen=True)
class QSub:
    """The difference a - b, as `QAdd`."""

    name: str
    a: str
    b: str
    activation: Activation = "none"


@dataclass(frozen=True)
class QMul:
    """The product, element by element, as `QAdd`."""

    name: str
    a: str
    b: str
    activation: Activation = "none"


@dataclass(frozen=True)
class QMean:
    """Mean over `axes`, which are kept with a size of 1, or dropped."""

    name: str
    x: str
    axes: tuple[int, ...] = (-3, -2)
    keep_dims: bool = True


@dataclass(frozen=True)
class QAveragePool:
    """Mean of the windows, in which padding is not counted; scale and zero point unchanged."""

    name: str
    x: str
    kernel: Pair
    stride: Pair
    padding: Padding = UNPADDED


@dataclass(frozen=True)
class QMaxPool:
    """The largest of the windows; padding is never the largest; scale and zero point unchanged."""

    name: str
    x: str
    kernel: Pair
    stride: Pair
    padding: Padding = "same"


@dataclass(frozen=True)
class QSoftmax:
    """Over the last axis; the output has scale 1/256 and zero point -128."""

    name: str
    x: str


@dataclass(frozen=True)
class QResize:
    """To the output's height and width; scale and zero point unchanged."""

    name: str
    x: str
    mode: ResizeMode = "bilinear"
    coordinates: Coordinates = "half_pixel"


@dataclass(frozen=True)
class QArgMax:
    """Index of the largest in the last axis, as int32; the first one on a tie. The file has no such axis any more."""

    name: str
    x: str


Weighted = QConv | QTransposedConv | QFullyConnected


@dataclass(frozen=True, eq=False)
class QFloatLayer:
    """A layer that is computed in float between integer maps, with the weights that it had before it was quantized.

    Attributes:
        layer: what it is as integers, whose form it has.
        weight, bias: real values, laid out as the layer's.
    """

    layer: Weighted
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def x(self) -> str:
        return self.layer.x

    @property
    def size_bits(self) -> int:
        return 32 * (self.weight.size + self.bias.size)

    def macs(self, output: IntTensor) -> int:
        return self.layer.macs(output)


Arithmetic = QAdd | QSub | QMul
Operator = (
    Weighted
    | QFloatLayer
    | Arithmetic
    | QMean
    | QAveragePool
    | QMaxPool
    | QSoftmax
    | QResize
    | QArgMax
    | Pointwise
    | Rearranging
    | QConstant
)


def _size_bits(op: Weighted) -> int:
    offsets = 0 if op.offset is None else int(op.offset.size)
    return int(op.weight.size) * op.bits + offsets * 8 + int(op.bias.size) * 32


def reads(operator: Operator) -> tuple[str, ...]:
    """The names of the feature maps that an operator reads."""
    match operator:
        case QAdd() | QSub() | QMul():
            return (operator.a, operator.b)
        case QConcat():
            return operator.xs
        case QConstant():
            return ()
        case _:
            return (operator.x,)


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """Operators in execution order; `tensors` holds the input and each operator's result, by name.

    Attributes:
        several: outputs, in the file's order, where there are others than the last operator's.
        file_names: of the input and of each output in the deployed file, where they are not those of their tensors.
    """

    tensors: dict[str, IntTensor]
    operators: tuple[Operator, ...]
    input: str
    several: tuple[str, ...] = ()
    file_names: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.several or (self.operators[-1].name,)

    @property
    def output(self) -> str:
        """The first one."""
        return self.outputs[0]

    @property
    def size_bits(self) -> int:
        return sum(op.size_bits for op in self.operators if isinstance(op, Weighted | QFloatLayer))

    @property
    def macs(self) -> int:
        return sum(op.macs(self.tensors[op.name]) for op in self.operators if isinstance(op, Weighted | QFloatLayer))

    def until(self, name: str) -> IntegerGraph:
        """The graph cut after the operator `name`."""
        names = [op.name for op in self.operators]
        return IntegerGraph(self.tensors, self.operators[: names.index(name) + 1], self.input)
