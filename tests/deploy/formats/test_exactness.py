"""LiteRT's answers equal the integer simulation's, byte for byte."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from deploy.compile.artifact import quantize
from deploy.formats.tflite.writer import write
from nas.errors import QuantizationError
from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.segmenter import Head, student
from nas.nsr import evaluate_all, golden_input
from nas.quant import reference, simulate
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    FullyConnected,
    MaxPool,
    Mean,
    Node,
    Pad,
    Reshape,
    Resize,
    Softmax,
)
from nas.quant.integer_graph import IntegerGraph, Weighted
from nas.quant.lower import lower
from nas.quant.ranges import OBSERVERS, calibrate
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Architecture, SearchSpace
from tests.deploy.networks import block_data, interpret, simulated, space, trained_like, widest_span

DEMO = space("demo")


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_every_subnet_of_the_demo_space(block):
    torch.manual_seed(block)
    supernet = trained_like(SuperBlock(DEMO, block), block)
    data = block_data(DEMO, block, (16, 20), seed=block)
    q = golden_input(data)
    for count, judged in enumerate(evaluate_all(supernet, data, bits=8), start=1):  # noqa: B007
        np.testing.assert_array_equal(interpret(write(judged.graph), q), judged.golden_output, str(judged.subnet))
    assert count == len(list(DEMO.subnets(block)))


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_few_bits_and_both_granularities(bits, granularity):
    torch.manual_seed(bits)
    supernet = trained_like(SuperBlock(DEMO, 4), bits)
    data = block_data(DEMO, 4, (9, 13), seed=bits)
    q = golden_input(data)
    for judged in evaluate_all(supernet, data, bits, Scheme(granularity)):
        np.testing.assert_array_equal(interpret(write(judged.graph), q), judged.golden_output, str(judged.subnet))
        assert max(widest_span(op) for op in judged.graph.operators if isinstance(op, Weighted)) < 2**bits


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("observer", OBSERVERS)
def test_every_way_to_quantize_a_block(observer, granularity):
    """Ranges that clip, equalized weights and corrected biases are integers like any others."""
    torch.manual_seed(7)
    supernet = trained_like(SuperBlock(DEMO, 4), 7)
    data = block_data(DEMO, 4, (9, 13), seed=7)
    scheme = Scheme(granularity, observer, equalize=True, bias_correction=True)
    q = golden_input(data, scheme)
    subnets = list(DEMO.subnets(4))
    for judged in evaluate_all(supernet, data, 8, scheme, subnets[:-7]):
        np.testing.assert_array_equal(interpret(write(judged.graph), q), judged.golden_output, str(judged.subnet))


def whole(
    of: SearchSpace, size: tuple[int, int], seed: int, scheme: Scheme = DEFAULT
) -> tuple[Architecture, IntegerGraph, torch.Tensor]:
    torch.manual_seed(seed)
    architecture = of.sample(random.Random(seed))
    model = student(of, architecture, 11, Head(16, (2, 4))).eval()
    images = (torch.randint(0, 256, (2, 3, *size)).float() - 128) / 128
    recalibrate(model, images)
    return architecture, quantize(model, [images], size, architecture=architecture, scheme=scheme), images


@pytest.mark.parametrize(
    ("name", "size", "seed"), [("demo", (96, 128), 0), ("demo", (112, 144), 1), ("table1", (90, 122), 2)]
)
def test_whole_models_logits_and_class_map(name, size, seed):
    _, graph, images = whole(space(name), size, seed)
    q = simulate.quantize(images[:1], graph.tensors[INPUT])
    for cut in (graph.until("logits"), graph.until("upsampled"), graph):
        np.testing.assert_array_equal(interpret(write(cut), simulate.as_nhwc(q)), simulated(cut, q), cut.output)


def test_a_whole_model_quantized_with_everything():
    _, graph, images = whole(DEMO, (96, 128), 3, Scheme("tensor", "mse", equalize=True, bias_correction=True))
    q = simulate.quantize(images[:1], graph.tensors[INPUT])
    cut = graph.until("upsampled")
    np.testing.assert_array_equal(interpret(write(cut), simulate.as_nhwc(q)), simulated(cut, q))


sizes = st.integers(1, 17)
channels = st.integers(1, 20)
activations = st.sampled_from(["none", "relu", "relu6"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Node], tuple[int, int, int], int, str]:
    """Random small networks: convolutions of every kind, then one of the other operators."""
    shape = (draw(sizes), draw(sizes), draw(channels))
    height, width, c = shape
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    spread = draw(st.sampled_from([0.01, 0.3, 3.0]))
    nodes: list[Node] = []
    last = INPUT
    for i in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.sampled_from([1, 3, 5, 7])), draw(st.sampled_from([1, 2]))
        dilation = draw(st.sampled_from([1, 2, 4])) if stride == 1 else 1
        depthwise = draw(st.booleans())
        out = c if depthwise else draw(channels)
        weight = torch.randn(out, 1 if depthwise else c, kernel, kernel, generator=generator) * spread
        bias = torch.randn(out, generator=generator) * draw(st.sampled_from([0.0, 1.0, 20.0]))
        nodes.append(Conv(f"c{i}", last, weight, bias, stride, dilation, draw(activations)))
        height, width, c, last = -(-height // stride), -(-width // stride), out, f"c{i}"
    size = (height * draw(st.integers(1, 4)), width * draw(st.integers(1, 4)))
    other = Conv("other", last, torch.randn(c, c, 1, 1, generator=generator), torch.randn(c, generator=generator))
    dense = FullyConnected("dense", "mean", torch.randn(7, c, generator=generator), torch.randn(7, generator=generator))
    tails: list[list[Node]] = [
        [],
        [other, Add("sum", last, "other", draw(activations))],
        [Resize("resized", last, size)],
        [other, Concat("both", (last, "other"))],
        [ArgMax("classes", last)],
        [Mean("mean", last)],
        [Pad("pad", last, (1, 0), (0, 2)), AveragePool("pool", "pad", 1, 2), Resize("resized", "pool", size)],
        [AveragePool("pool", last, min(height, width), 1), Reshape("vector", "pool", (-1,))],
        [AveragePool("pool", last, 1, 1), replace(other, x="pool"), Concat("both", ("pool", "other"))],
        [Mean("mean", last), dense, Softmax("probabilities", "dense")],
        [MaxPool("pool", last, draw(st.integers(1, 3)), draw(st.integers(1, 3))), replace(other, x="pool")],
        [MaxPool("pool", last, 3, 1), other, Add("sum", "pool", "other", draw(activations)), Mean("mean", "sum")],
    ]
    return nodes + draw(st.sampled_from(tails)), shape, seed, draw(st.sampled_from(["channel", "tensor"]))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_random_graphs(case):
    """XNNPACK against `simulate`, the reference kernels against `reference`."""
    nodes, (height, width, depth), seed, granularity = case
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randint(0, 256, (2, depth, height, width), generator=generator).float() - 128) / 128
    ranges = calibrate(nodes, [x])
    try:
        graph = lower(nodes, ranges, (height, width, depth), granularity)
    except QuantizationError:
        reject()  # a dead tensor: refused, which is another test's matter
    q = simulate.quantize(x[:1], graph.tensors[INPUT])
    content, source = write(graph), simulate.as_nhwc(q)
    answer = interpret(content, source)
    np.testing.assert_array_equal(answer, simulated(graph, q).reshape(answer.shape))
    answer = interpret(content, source, OpResolverType.BUILTIN_REF)
    np.testing.assert_array_equal(answer, simulate.as_nhwc(reference.run(graph, q), np.int32).reshape(answer.shape))


def test_a_dead_tensor_is_refused_by_name():
    nodes: list[Node] = [Conv("dead", INPUT, torch.zeros(2, 3, 1, 1), torch.full((2,), -1.0), activation="relu6")]
    with pytest.raises(QuantizationError, match="'dead' is zero on all calibration images"):
        lower(nodes, calibrate(nodes, [torch.rand(1, 3, 4, 4)]), (4, 4, 3))


def test_saturation_at_both_ends():
    """Ranges calibrated on small values, then fed large ones: every kind of operator must clamp alike."""
    generator = torch.Generator().manual_seed(3)
    nodes: list[Node] = [
        Conv("a", INPUT, torch.randn(8, 4, 3, 3, generator=generator), torch.zeros(8)),
        Conv("b", "a", torch.randn(8, 1, 3, 3, generator=generator), torch.zeros(8)),
        Add("sum", "a", "b"),
    ]
    graph = lower(nodes, calibrate(nodes, [torch.randn(2, 4, 9, 9, generator=generator) * 0.05]), (9, 9, 4))
    q = torch.randint(-128, 128, (1, 4, 9, 9), generator=generator).float()
    expected = simulated(graph, q)
    assert (expected == 127).any() and (expected == -128).any()
    np.testing.assert_array_equal(interpret(write(graph), simulate.as_nhwc(q)), expected)


def test_wide_accumulators_fall_back_to_float64():
    """An accumulator beyond 2^24 is not exact in float32; the simulation must notice and stay exact."""
    depth = 2048
    weight = torch.ones(2, depth, 1, 1)
    weight[1, ::2] = -1.0
    nodes: list[Node] = [Conv("wide", INPUT, weight, torch.tensor([0.0, 0.123]))]
    graph = lower(nodes, {INPUT: (-1.0, 127 / 128), "wide": (-2048.0, 2048.0)}, (3, 3, depth))
    q = torch.randint(100, 128, (1, depth, 3, 3)).float()
    np.testing.assert_array_equal(interpret(write(graph), simulate.as_nhwc(q)), simulated(graph, q))
