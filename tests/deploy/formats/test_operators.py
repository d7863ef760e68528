"""Operators of classifiers and ends on random integers: on both kernel sets and in uint8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas.quant.integer_graph import (
    IntTensor,
    Operator,
    QAdd,
    QAveragePool,
    QConv,
    QFullyConnected,
    QMaxPool,
    QMean,
    QSoftmax,
)
from nas.quant.integer_operators import QPad, QReshape
from tests.deploy.exactness import ACTIVATIONS, agrees, seeds, tensor

ratios = st.sampled_from([0, 0.25, 0.5, 0.75, 1, 1.5, 2])


def fully_connected(x: IntTensor, y: IntTensor, rng: np.random.Generator, per_channel: bool) -> QFullyConnected:
    inputs, outputs = x.shape[2], y.shape[2]
    scale = rng.uniform(0.001, 0.02, outputs if per_channel else 1).astype(np.float32)
    weight = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    bias = rng.integers(-5000, 5000, outputs).astype(np.int32)
    return QFullyConnected(y.name, x.name, weight, scale, bias, ACTIVATIONS[int(rng.integers(3))], 8)


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 80), st.integers(1, 30), st.booleans())
def test_a_classifiers_end(seed, inputs, classes, per_channel):
    """FULLY_CONNECTED, then SOFTMAX, on a vector."""
    rng = np.random.default_rng(seed)
    x, y = tensor("input", (1, 1, inputs), rng), tensor("fc", (1, 1, classes), rng, rank=2)
    softmax = IntTensor("softmax", (1, 1, classes), 1 / 256, -128, rank=2)
    dense = fully_connected(x, y, rng, per_channel)
    agrees([x, y], [dense], rng)
    agrees([x, y, softmax], [dense, QSoftmax("softmax", "fc")], rng)


@settings(max_examples=60, deadline=None)
@given(seeds, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20)), st.integers(1, 3), st.integers(1, 3))
def test_average_pooling(seed, size, window, stride):
    rng = np.random.default_rng(seed)
    kernel = min(window, *size[:2])
    x = tensor("input", size, rng)
    shape = ((size[0] - kernel) // stride + 1, (size[1] - kernel) // stride + 1, size[2])
    y = IntTensor("pool", shape, x.scale, x.zero_point)
    agrees([x, y], [QAveragePool("pool", "input", kernel, stride)], rng)


@settings(max_examples=80, deadline=None)
@given(
    seeds, st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 20)), st.integers(1, 4), st.integers(1, 3)
)
@example(0, (14, 15, 16), 3, 2)  # a ResNet's: nothing is padded before an even side, one pixel before an odd one
def test_max_pooling(seed, size, kernel, stride):
    rng = np.random.default_rng(seed)
    x = tensor("input", size, rng)
    y = IntTensor("pool", (-(-size[0] // stride), -(-size[1] // stride), size[2]), x.scale, x.zero_point)
    agrees([x, y], [QMaxPool("pool", "input", kernel, stride)], rng)


@settings(max_examples=100, deadline=None)
@given(seeds, st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 20)), ratios, st.sampled_from(ACTIVATIONS))
def test_addition_and_its_activation(seed, size, ratio, activation):
    """Of a map and its maxima: two tensors of one scale; then of that and the map, whose scales differ."""
    rng = np.random.default_rng(seed)
    x = tensor("input", size, rng)
    pooled = IntTensor("pool", size, x.scale, x.zero_point)
    other = float(np.float32(x.scale * (ratio or rng.uniform(0.1, 3))))
    first = IntTensor("first", size, other, int(rng.integers(-128, 128)))
    second = tensor("second", size, rng)
    operators: list[Operator] = [
        QMaxPool("pool", "input", 3, 1),
        QAdd("first", "input", "pool", activation),
        QAdd("second", "first", "input", activation),
    ]
    agrees([x, pooled, first], operators[:2], rng)
    agrees([x, pooled, first, second], operators, rng)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.tuples(*[st.integers(0, 3)] * 4))
def test_padding_and_flattening(seed, height, width, around):
    rng = np.random.default_rng(seed)
    x = tensor("input", (height, width, 5), rng)
    rows, columns = around[:2], around[2:]
    shape = (height + sum(rows), width + sum(columns), 5)
    padded = IntTensor("pad", shape, x.scale, x.zero_point)
    flat = IntTensor("flat", (1, 1, shape[0] * shape[1] * 5), x.scale, x.zero_point, rank=2)
    agrees([x, padded, flat], [QPad("pad", "input", rows, columns), QReshape("flat", "pad")], rng)


@settings(max_examples=60, deadline=None)
@given(
    seeds, st.integers(1, 5), st.integers(1, 5), st.integers(1, 120), st.sampled_from([1e-4, 0.01, 0.05, 0.3, 2.0, 9.0])
)
@example(28, 5, 5, 3, 0.01)  # these hold a probability on which the two kernel sets differ
@example(45, 5, 5, 10, 0.05)
@example(160, 5, 5, 30, 0.05)
def test_softmax_of_maps(seed, height, width, classes, scale):
    """Scales at which nothing, some and nearly all of the exponentials vanish."""
    rng = np.random.default_rng(seed)
    scale = float(np.float32(scale * rng.uniform(0.7, 1)))
    x = IntTensor("input", (height, width, classes), scale, int(rng.integers(-128, 128)))
    y = IntTensor("softmax", x.shape, 1 / 256, -128)
    agrees([x, y], [QSoftmax("softmax", "input")], rng)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 14), st.integers(1, 14), st.integers(1, 40), st.sampled_from([0, 0.25, 0.5, 0.75, 1, 1.5, 2]), seeds
)
@example(1, 4, 2000, 1.5, 0)  # these hold ties that other orders of the float32 steps answer otherwise
@example(7, 2, 2000, 1, 1)
@example(12, 5, 2000, 0.5, 1)
@example(128, 128, 40, 1, 0)
@example(363, 363, 8, 0.5, 0)  # the sum of the raw integers may pass 2^24
def test_mean(height, width, depth, ratio, seed):
    """Simple ratios of the scales put many means exactly between two integers."""
    rng = np.random.default_rng(seed)
    scale = float(np.float32(rng.uniform(0.001, 0.1)))
    other = float(np.float32(scale * (ratio or rng.uniform(0.2, 2.0))))
    zero, zero_out = (int(z) for z in rng.integers(-128, 128, 2))
    x = IntTensor("input", (height, width, depth), scale, zero)
    y = IntTensor("mean", (1, 1, depth), other, zero_out)
    agrees([x, y], [QMean("mean", "input")], rng)


@pytest.mark.parametrize("zero_point", [4, 5])
@pytest.mark.parametrize("scale", [12.0, 4.0, 2.4])
def test_six_between_two_integers(scale, zero_point):
    """RELU6's clamp where 6 / scale ends in 1/2: XNNPACK takes the even integer, the others go away from zero."""
    weight, one, zero = np.full((1, 1, 1, 1), 100, np.int8), np.ones(1, np.float32), np.zeros(1, np.int32)
    conv = QConv("c", "x", weight, one, zero, 1, 1, False, "relu6", 8)
    y = IntTensor("c", (3, 3, 1), float(np.float32(scale)), zero_point)
    rng = np.random.default_rng(0)
    agrees([IntTensor("x", (3, 3, 1), 1.0, -128), y], [conv], rng)
    agrees([IntTensor("x", (8, 8, 4), 0.5, 0), replace(y, shape=(8, 8, 4))], [QAdd("c", "x", "x", "relu6")], rng)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 9), st.booleans(), st.sampled_from([1, 3]))
def test_relu_of_a_convolution(seed, channels, depthwise, kernel):
    """Zero points inside int8: the clamp at 0 is the activation's own."""
    rng = np.random.default_rng(seed)
    x, y = tensor("x", (5, 6, channels), rng), tensor("c", (5, 6, channels), rng)
    shape = (1, kernel, kernel, channels) if depthwise else (channels, kernel, kernel, channels)
    weight, scale = (
        rng.integers(-127, 128, shape).astype(np.int8),
        rng.uniform(0.001, 0.02, channels).astype(np.float32),
    )
    bias = rng.integers(-2000, 2000, channels).astype(np.int32)
    agrees([x, y], [QConv("c", "x", weight, scale, bias, 1, 1, depthwise, "relu", 8)], rng)
