"""Graphs of one operator (or the few that it takes) with random weights, whose outputs use all of int8's range.

The same arguments give the same bytes, so that what was measured of a file is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.quant.integer_graph import (
    Activation,
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConv,
    QFullyConnected,
    QMaxPool,
    QMean,
    QResize,
)
from nas.quant.integer_operators import QConcat, QPad

Shape: TypeAlias = tuple[int, int, int]  # H, W, C

INPUT = "input"
SCALE = float(np.float32(0.05))  # of every map, if nothing else is said: -6.5 to 6.2
DEVIATION = 73.6  # of integers that are uniform over int8
OUTPUT_DEVIATION = 40.0  # of a convolution's output: few of its integers are clamped
Step: TypeAlias = tuple[Operator, Shape, float]
"""An operator, and the shape and scale of its output."""


def graph(shape: Shape, steps: Sequence[Step], rank: Literal[2, 4] = 4) -> IntegerGraph:
    """The steps after one another; the input has `shape`."""
    tensors = {INPUT: IntTensor(INPUT, shape, SCALE, 3, rank=rank)}
    for op, size, scale in steps:
        classes = isinstance(op, QArgMax)
        tensors[op.name] = (
            IntTensor(op.name, size, 1.0, 0, "int32") if classes else IntTensor(op.name, size, scale, 3, rank=rank)
        )
    return IntegerGraph(tensors, tuple(op for op, _, _ in steps), INPUT)


def convolution(
    shape: Shape,
    kernel: int,
    *,
    depthwise: bool = False,
    stride: int = 1,
    dilation: int = 1,
    per_channel: bool = False,
    activation: Activation = "none",
    widen: int = 1,
) -> IntegerGraph:
    """SAME, to `widen` times as many channels as it reads."""
    channels = widen * shape[2]
    weights = (1, kernel, kernel, channels) if depthwise else (channels, kernel, kernel, shape[2])
    values, scale, bias = _weights(weights, prod(weights) // channels, SCALE, per_channel)
    op = QConv("conv", INPUT, values, scale, bias, stride, dilation, depthwise, activation, 8)
    return graph(shape, [(op, (-(-shape[0] // stride), -(-shape[1] // stride), channels), SCALE)])


def fully_connected(inputs: int, outputs: int, *, per_channel: bool = False) -> IntegerGraph:
    values, scale, bias = _weights((outputs, inputs), inputs, SCALE, per_channel)
    op = QFullyConnected("fully_connected", INPUT, values, scale, bias, "none", 8)
    return graph((1, 1, inputs), [(op, (1, 1, outputs), SCALE)], rank=2)


def addition(shape: Shape, *, apart: float = 1.0, activation: Activation = "none") -> IntegerGraph:
    """The input plus a 1x1 convolution of it, whose scale is `apart` times smaller."""
    conv = _pointwise("conv", shape, SCALE / apart)
    return graph(shape, [conv, (QAdd("add", INPUT, "conv", activation), shape, 2 * SCALE)])


def concatenation(shape: Shape) -> IntegerGraph:
    """Two 1x1 convolutions of the input, joined."""
    joined = (QConcat("concat", ("first", "second")), (shape[0], shape[1], 2 * shape[2]), SCALE)
    return graph(shape, [_pointwise("first", shape, SCALE), _pointwise("second", shape, SCALE), joined])


def max_pool(shape: Shape, kernel: int, stride: int) -> IntegerGraph:
    after = (-(-shape[0] // stride), -(-shape[1] // stride), shape[2])
    return graph(shape, [(QMaxPool("pool", INPUT, kernel, stride), after, SCALE)])


def average_pool(shape: Shape, kernel: int, stride: int) -> IntegerGraph:
    after = ((shape[0] - kernel) // stride + 1, (shape[1] - kernel) // stride + 1, shape[2])
    return graph(shape, [(QAveragePool("pool", INPUT, kernel, stride), after, SCALE)])


def mean(shape: Shape) -> IntegerGraph:
    return graph(shape, [(QMean("mean", INPUT), (1, 1, shape[2]), SCALE / 8)])


def pad(shape: Shape) -> IntegerGraph:
    return graph(shape, [(QPad("pad", INPUT, (1, 1), (1, 1)), (shape[0] + 2, shape[1] + 2, shape[2]), SCALE)])


def resize(shape: Shape, size: tuple[int, int]) -> IntegerGraph:
    return graph(shape, [(QResize("resize", INPUT), (*size, shape[2]), SCALE)])


def tail(shape: Shape, factor: int = 1, *, classes: bool = True, activation: Activation = "none") -> IntegerGraph:
    """A segmentation network's end: logits by a 1x1 convolution, scaled up by `factor`, and the class of each pixel."""
    steps = [_pointwise("logits", shape, SCALE, activation)]
    size = (factor * shape[0], factor * shape[1])
    if factor > 1:
        steps.append((QResize("resize", "logits"), (*size, shape[2]), SCALE))
    if classes:
        steps.append((QArgMax("classes", steps[-1][0].name), (*size, 1), 1.0))
    return graph(shape, steps)


def _pointwise(name: str, shape: Shape, scale: float, activation: Activation = "none") -> Step:
    """A 1x1 convolution of the input whose output has `scale`, and a range that fits it."""
    values, weight_scale, bias = _weights((shape[2], 1, 1, shape[2]), shape[2], scale, False)
    scale = float(np.float32(scale))
    return QConv(name, INPUT, values, weight_scale, bias, 1, 1, False, activation, 8), shape, scale


def _weights(
    shape: tuple[int, ...], products: int, scale: float, per_channel: bool
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32]]:
    """Weights, their scales, and biases of an operator that sums so many products; its output has `scale`."""
    outputs = shape[3] if shape[0] == 1 else shape[0]
    rng = np.random.default_rng(prod(shape))
    weight_scale = scale / SCALE * OUTPUT_DEVIATION / (np.sqrt(products) * DEVIATION**2)
    each = rng.uniform(0.5, 1.5, outputs) if per_channel else np.ones(1)
    values = rng.integers(-127, 128, shape).astype(np.int8)
    bias = rng.integers(-2000, 2000, outputs).astype(np.int32)
    return values, (each * weight_scale).astype(np.float32), bias
