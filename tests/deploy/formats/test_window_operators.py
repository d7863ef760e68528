"""Windows as any network may have them, all kernels, strides, paddings and groups: on both kernel sets and in uint8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import write
from nas.errors import QuantizationError
from nas.quant.integer_graph import IntegerGraph, QAveragePool, QConv, QMaxPool, QTransposedConv
from nas.quant.windows import Window
from tests.deploy.exactness import ACTIVATIONS, agrees, like, seeds, tensor

sizes = st.tuples(st.integers(3, 11), st.integers(3, 11))
kernels = st.tuples(st.integers(1, 4), st.integers(1, 5))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.just("same") | st.tuples(*[st.integers(0, 3)] * 4)
channels = st.integers(1, 9)


def parameters(shape: tuple[int, ...], outputs: int, rng: np.random.Generator) -> dict[str, Any]:
    """Weights per channel or per tensor, and an activation."""
    return {
        "weight": rng.integers(-127, 128, shape).astype(np.int8),
        "weight_scale": rng.uniform(0.001, 0.02, rng.choice([outputs, 1])).astype(np.float32),
        "bias": rng.integers(-3000, 3000, outputs).astype(np.int32),
        "activation": ACTIVATIONS[int(rng.integers(3))],
        "bits": 8,
    }


@settings(max_examples=80, deadline=None)
@given(seeds, sizes, kernels, strides, paddings)
@example(0, (8, 9), (3, 3), (2, 2), (1, 1, 1, 1))  # torch's
@example(0, (8, 9), (2, 4), (1, 1), "same")  # SAME pads more after than before
def test_convolutions(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    dilation = (1, 1) if stride != (1, 1) else tuple(int(d) for d in rng.integers(1, 3, 2))
    after = Window(kernel, stride, dilation, padding).places(size)
    assume(min(after) > 0)
    inputs, outputs = (int(n) for n in rng.integers(1, 10, 2))
    values = parameters((outputs, *kernel, inputs), outputs, rng)
    conv = QConv("y", "x", stride=stride, dilation=dilation, depthwise=False, padding=padding, **values)
    agrees([tensor("x", (*size, inputs), rng), tensor("y", (*after, outputs), rng)], [conv], rng)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 4), channels, channels, st.integers(1, 3))
def test_grouped_convolutions(seed, groups, inputs, outputs, kernel):
    rng = np.random.default_rng(seed)
    values = parameters((groups * outputs, kernel, kernel, inputs), groups * outputs, rng)
    conv = QConv("y", "x", stride=1, dilation=1, depthwise=False, **values)
    agrees([tensor("x", (5, 6, groups * inputs), rng), tensor("y", (5, 6, groups * outputs), rng)], [conv], rng)


@settings(max_examples=40, deadline=None)
@given(seeds, sizes, kernels, strides, paddings)
def test_depthwise_convolutions_with_several_results_per_channel(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    after = Window(kernel, stride, 1, padding).places(size)
    assume(min(after) > 0)
    inputs, multiplier = (int(n) for n in rng.integers(1, [9, 4]))
    values = parameters((1, *kernel, inputs * multiplier), inputs * multiplier, rng)
    conv = QConv("y", "x", stride=stride, dilation=1, depthwise=True, padding=padding, **values)
    agrees([tensor("x", (*size, inputs), rng), tensor("y", (*after, inputs * multiplier), rng)], [conv], rng)


@settings(max_examples=80, deadline=None)
@given(seeds, st.tuples(st.integers(1, 6), st.integers(1, 6)), kernels, strides, paddings)
@example(0, (4, 5), (4, 4), (2, 2), (1, 1, 1, 1))  # torch's for twice the size: SAME
@example(0, (4, 5), (3, 3), (2, 2), (1, 0, 1, 0))  # and with output_padding: cut by a SLICE
@example(0, (4, 5), (2, 2), (2, 2), (0, -1, 0, -1))  # rows and columns of nothing but the bias
@example(3, (6, 6), (1, 4), (3, 1), "same")  # a kernel below the stride
def test_transposed_convolutions(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    if padding == "same":
        after = tuple(n * s for n, s in zip(size, stride, strict=True))
    else:
        full = [(n - 1) * s + k for n, s, k in zip(size, stride, kernel, strict=True)]
        after = (full[0] - sum(padding[:2]), full[1] - sum(padding[2:]))
    assume(min(after) > 0)
    inputs, outputs = (int(n) for n in rng.integers(1, 10, 2))
    conv = QTransposedConv(
        "y", "x", stride=stride, padding=padding, **parameters((outputs, *kernel, inputs), outputs, rng)
    )
    agrees([tensor("x", (*size, inputs), rng), tensor("y", (*after, outputs), rng)], [conv], rng)


@settings(max_examples=60, deadline=None)
@given(seeds, sizes, kernels, strides, paddings)
@example(0, (14, 15), (3, 3), (2, 2), (1, 1, 1, 1))  # a ResNet's, in torch
def test_max_pooling_of_any_window(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    after = Window(kernel, stride, 1, padding).places(size)
    assume(min(after) > 0)
    x = tensor("x", (*size, 3), rng)
    agrees([x, like(x, "y", (*after, 3))], [QMaxPool("y", "x", kernel, stride, padding)], rng)


@settings(max_examples=60, deadline=None)
@given(seeds, sizes, kernels, strides, st.sampled_from(["same", (0, 0, 0, 0)]))
def test_average_pooling_of_any_window(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    after = Window(kernel, stride, 1, padding).places(size)
    assume(min(after) > 0)
    x = tensor("x", (*size, 3), rng)
    agrees([x, like(x, "y", (*after, 3))], [QAveragePool("y", "x", kernel, stride, padding)], rng)


def test_average_pooling_that_no_operator_pads_is_refused_by_name():
    rng = np.random.default_rng(0)
    x = tensor("x", (8, 8, 3), rng)
    graph = IntegerGraph({"x": x, "y": like(x, "y", (4, 4, 3))}, (QAveragePool("y", "x", 3, 2, (1, 1, 1, 1)),), "x")
    with pytest.raises(QuantizationError, match="average pooling 'y' pads 1, 1 rows and 1, 1 columns"):
        write(graph)


def test_what_a_padding_becomes():
    """SAME where it is SAME's, nothing where it is nothing, an operator of its own elsewhere."""
    rng = np.random.default_rng(0)
    x = tensor("x", (8, 8, 3), rng)
    wanted = {(0, 1, 0, 1): ["MAX_POOL_2D"], (1, 1, 1, 1): ["PADV2", "MAX_POOL_2D"], (0, 0, 0, 0): ["MAX_POOL_2D"]}
    for padding, names in wanted.items():
        y = like(x, "y", (*Window(3, 2, 1, padding).places((8, 8)), 3))
        graph = IntegerGraph({"x": x, "y": y}, (QMaxPool("y", "x", 3, 2, padding),), "x")
        assert [op.name for op in parse(write(graph), "m").operators] == names


def test_even_kernels_padded_as_same():
    """One row and column more after than before."""
    rng = np.random.default_rng(0)
    conv = QConv("y", "x", stride=1, dilation=1, depthwise=False, **parameters((4, 2, 2, 3), 4, rng))
    agrees([tensor("x", (5, 6, 3), rng), tensor("y", (5, 6, 4), rng)], [conv], rng)
