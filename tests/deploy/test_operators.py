"""Operators of classifiers and ends, each against LiteRT on random integers: byte for byte."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import interpret, simulated

from deploy.tflite.writer import write
from nas.quant import simulate
from nas.quant.integer_graph import (
    IntegerGraph,
    IntTensor,
    Operator,
    QAveragePool,
    QFullyConnected,
    QPad,
    QReshape,
    QSoftmax,
)

seeds = st.integers(0, 2**31)


def tensor(name: str, shape: tuple[int, int, int], rng: np.random.Generator, rank: int = 4) -> IntTensor:
    scale = float(np.float32(rng.uniform(0.01, 0.2)))
    return IntTensor(name, shape, scale, int(rng.integers(-128, 128)), rank=rank)


def agrees(source: IntTensor, results: list[IntTensor], operators: list[Operator], rng: np.random.Generator) -> None:
    graph = IntegerGraph({t.name: t for t in (source, *results)}, tuple(operators), source.name)
    height, width, channels = source.shape
    q = torch.from_numpy(rng.integers(-128, 128, (1, channels, height, width))).float()
    answer = interpret(write(graph), simulate.as_nhwc(q))
    np.testing.assert_array_equal(answer, simulated(graph, q).reshape(answer.shape))


def fully_connected(x: IntTensor, y: IntTensor, rng: np.random.Generator, per_channel: bool) -> QFullyConnected:
    inputs, outputs = x.shape[2], y.shape[2]
    scale = rng.uniform(0.001, 0.02, outputs if per_channel else 1).astype(np.float32)
    weight = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    bias = rng.integers(-5000, 5000, outputs).astype(np.int32)
    return QFullyConnected(y.name, x.name, weight, scale, bias, ("none", "relu6")[int(rng.integers(2))], 8)


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 80), st.integers(1, 30), st.booleans())
def test_a_classifiers_end(seed, inputs, classes, per_channel):
    """FULLY_CONNECTED, then SOFTMAX, on a vector."""
    rng = np.random.default_rng(seed)
    x, y = tensor("input", (1, 1, inputs), rng), tensor("fc", (1, 1, classes), rng, rank=2)
    softmax = IntTensor("softmax", (1, 1, classes), 1 / 256, -128, rank=2)
    dense = fully_connected(x, y, rng, per_channel)
    agrees(x, [y], [dense], rng)
    agrees(x, [y, softmax], [dense, QSoftmax("softmax", "fc")], rng)


@settings(max_examples=60, deadline=None)
@given(seeds, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20)), st.integers(1, 3), st.integers(1, 3))
def test_average_pooling(seed, size, window, stride):
    rng = np.random.default_rng(seed)
    kernel = min(window, *size[:2])
    x = tensor("input", size, rng)
    shape = ((size[0] - kernel) // stride + 1, (size[1] - kernel) // stride + 1, size[2])
    y = IntTensor("pool", shape, x.scale, x.zero_point)
    agrees(x, [y], [QAveragePool("pool", "input", kernel, stride)], rng)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.tuples(*[st.integers(0, 3)] * 4))
def test_padding_and_flattening(seed, height, width, around):
    rng = np.random.default_rng(seed)
    x = tensor("input", (height, width, 5), rng)
    rows, columns = around[:2], around[2:]
    shape = (height + sum(rows), width + sum(columns), 5)
    padded = IntTensor("pad", shape, x.scale, x.zero_point)
    flat = IntTensor("flat", (1, 1, shape[0] * shape[1] * 5), x.scale, x.zero_point, rank=2)
    agrees(x, [padded, flat], [QPad("pad", "input", rows, columns), QReshape("flat", "pad")], rng)
