"""Records of the integer operators that add nothing up: constants, those that move integers, those of single integers.

Axes and shapes are the deployed file's without the batch, channels last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class QConstant:
    """Integers that an addition, subtraction or product reads; shaped as its tensor in the file."""

    name: str
    values: NDArray[np.int8]


@dataclass(frozen=True)
class QPad:
    """(before, after) rows, columns and channels of zeros, or of `value`; scale and zero point unchanged."""

    name: str
    x: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    channels: tuple[int, int] = (0, 0)
    value: int | None = None  # an integer; None: the zero point


@dataclass(frozen=True)
class QReshape:
    """The same integers, in the deployed order (H, W, C), in the output's shape."""

    name: str
    x: str


@dataclass(frozen=True)
class QTranspose:
    """For each of the result's axes, the axis of `x`: (-1, -3, -2) is (C, H, W)."""

    name: str
    x: str
    permutation: tuple[int, ...]


@dataclass(frozen=True)
class QConcat:
    """Along the channels or another axis; all inputs and the output share one scale and zero point."""

    name: str
    xs: tuple[str, ...]
    axis: int = -1


@dataclass(frozen=True)
class QSlice:
    """`size` integers, `strides` apart, from `begin` on along each of the last axes; scale and zero point unchanged."""

    name: str
    x: str
    begin: tuple[int, ...]
    size: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class QDepthToSpace:
    """Channels (block, block, C) become `block` x `block` positions."""

    name: str
    x: str
    block: int


@dataclass(frozen=True)
class QSpaceToDepth:
    """`block` x `block` positions become channels (block, block, C)."""

    name: str
    x: str
    block: int


@dataclass(frozen=True)
class QRequantize:
    """The same values at another scale and zero point."""

    name: str
    x: str


@dataclass(frozen=True)
class QRelu:
    name: str
    x: str


@dataclass(frozen=True)
class QRelu6:
    name: str
    x: str


@dataclass(frozen=True)
class QLeakyRelu:
    """Negative values times `alpha`."""

    name: str
    x: str
    alpha: float


@dataclass(frozen=True, eq=False)
class QPRelu:
    """Negative values times each channel's slope (C,), or one slope (1,): slope_scale * (slope - slope_zero_point)."""

    name: str
    x: str
    slope: NDArray[np.int8]
    slope_scale: float
    slope_zero_point: int


@dataclass(frozen=True)
class QSigmoid:
    """The output has scale 1/256 and zero point -128."""

    name: str
    x: str


@dataclass(frozen=True)
class QTanh:
    """The output has scale 1/128 and zero point 0."""

    name: str
    x: str


@dataclass(frozen=True)
class QHardSwish:
    name: str
    x: str


Rearranging = QPad | QReshape | QTranspose | QConcat | QSlice | QDepthToSpace | QSpaceToDepth
Pointwise = QRequantize | QRelu | QRelu6 | QLeakyRelu | QPRelu | QSigmoid | QTanh | QHardSwish
