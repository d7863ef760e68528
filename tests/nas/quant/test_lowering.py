"""Which integer operators float ones become, and what is refused, by its name."""

from __future__ import annotations

import math

import pytest
import torch

from nas.errors import QuantizationError
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    AveragePool,
    Clip,
    Concat,
    Const,
    Conv,
    FullyConnected,
    HardSwish,
    Mean,
    Mul,
    Node,
    PRelu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    TransposedConv,
    run,
)
from nas.quant.integer_graph import IntegerGraph, QConv, QMul
from nas.quant.integer_operators import QPRelu, QRelu, QRelu6, QRequantize
from nas.quant.lower import lower
from nas.quant.post_training import lowerable, quantize
from nas.quant.ranges import minmax
from nas.quant.scheme import Scheme
from nas.quant.simulate import dequantize, outputs_of
from nas.quant.simulate import quantize as to_integers

SHAPE = (6, 8, 4)  # H, W, C


def images(count: int = 4, spread: float = 1.0) -> torch.Tensor:
    return torch.randn(count, 4, 6, 8, generator=torch.Generator().manual_seed(0)) * spread


def quantized(nodes: list[Node], x: torch.Tensor | None = None, **options) -> IntegerGraph:
    x = images() if x is None else x
    return quantize(nodes, [x], SHAPE, input_range=minmax(x), **options)


def real(graph: IntegerGraph, x: torch.Tensor) -> torch.Tensor:
    """The first output, as the file's integers stand for it."""
    y = outputs_of(graph, to_integers(x, graph.tensors[INPUT]))[graph.output]
    return dequantize(y, graph.tensors[graph.output])


@pytest.mark.parametrize(
    ("low", "high", "kinds"),
    [
        (0, math.inf, [QRelu]),
        (0, 6, [QRelu6]),
        (-1, 1.5, [QRequantize]),
        (-math.inf, 0.75, [QRequantize]),
    ],
)
def test_a_clip_is_saturation_or_a_relu(low, high, kinds):
    graph = quantized([Clip("y", INPUT, float(low), float(high))], images(spread=4))
    assert [type(op) for op in graph.operators] == kinds


@pytest.mark.parametrize(
    ("low", "high"), [(-1, 1.5), (0.5, 3), (-2, -0.25), (0.5, math.inf), (0, 6), (-math.inf, 0.75)]
)
def test_a_clip_holds_beyond_the_calibrated_values(low, high):
    """Also where its result shares the scale of a wider tensor: that is requantized behind it."""
    nodes: list[Node] = [Clip("y", INPUT, float(low), float(high)), Concat("both", ("y", INPUT))]
    x = images(spread=4)
    graph = quantized(nodes, x, outputs=("y", "both"))
    wide, step = x * 100, graph.tensors["y"].scale + graph.tensors[INPUT].scale
    held = real(graph, wide.clamp(*minmax(x)))
    assert held.min() >= low - step and held.max() <= high + step
    expected = run(nodes[:1], {INPUT: x})
    assert (real(graph, x) - expected).abs().max() <= 2 * step


def test_padding_that_no_kernel_leaves_out_of_a_mean():
    nodes: list[Node] = [AveragePool("y", INPUT, 3, 2, (1, 1, 1, 1))]
    graph = quantized(nodes)
    error = (real(graph, images()) - run(nodes, {INPUT: images()})).abs().max()
    assert error < 3 * graph.tensors["y"].scale
    assert [op.name for op in graph.operators] == ["y/padded", "y/counted", "y/share", "y"]


@pytest.mark.parametrize(
    ("weight", "depthwise"),
    [((4, 1), True), ((8, 1), True), ((4, 2), False), ((4, 4), False)],
    ids=["depthwise", "two results per channel", "grouped", "full"],
)
def test_groups(weight, depthwise):
    (op,) = quantized([Conv("y", INPUT, torch.randn(*weight, 3, 3), torch.randn(weight[0]))]).operators
    assert isinstance(op, QConv) and op.depthwise == depthwise
    assert op.weight.shape == ((1, 3, 3, weight[0]) if depthwise else (weight[0], 3, 3, weight[1]))


def test_scales_that_kernels_fix():
    graph = quantized([Sigmoid("gate", INPUT), Mul("y", INPUT, "gate"), Softmax("p", "y"), Reshape("v", "p", (-1,))])
    assert (graph.tensors["gate"].scale, graph.tensors["gate"].zero_point) == (1 / 256, -128)
    assert (graph.tensors["v"].scale, graph.tensors["v"].zero_point) == (1 / 256, -128)
    assert graph.tensors["v"].file_shape == (1, 192)


def test_slopes_per_channel():
    (op,) = quantized([PRelu("y", INPUT, torch.tensor([0.5, -0.25, 0.0, 1.0]).reshape(1, 4, 1, 1))]).operators
    assert isinstance(op, QPRelu)
    assert (op.slope * op.slope_scale).tolist() == pytest.approx([0.5, -0.25, 0.0, 1.0], abs=0.005)


def test_a_constant_beside_a_vector_is_one():
    """As a map, it would make the sum one."""
    nodes = [
        Mean("mean", INPUT, keep_dims=False),
        Const("three", torch.full((1, 1, 1, 1), 3.0)),
        Add("y", "mean", "three"),
        FullyConnected("logits", "y", torch.randn(5, 4), torch.randn(5)),
    ]
    graph = quantized(nodes)
    assert [graph.tensors[name].file_shape for name in ("three", "y", "logits")] == [(1, 1), (1, 4), (1, 5)]


def test_a_constant_of_zeros():
    graph = quantized([Const("zero", torch.zeros(1, 4, 1, 1)), Add("y", INPUT, "zero")])
    assert (real(graph, images()) - images()).abs().max() < 2 * graph.tensors["y"].scale


def test_biases_are_corrected_behind_what_is_requantized():
    """The mean of each channel is then the float network's."""
    torch.manual_seed(0)
    nodes: list[Node] = [
        Softmax("p", INPUT),
        Conv("a", INPUT, torch.randn(4, 4, 1, 1), torch.randn(4)),
        Concat("both", ("p", "a")),
        Conv("y", "both", torch.randn(6, 8, 3, 3), torch.randn(6)),
    ]
    graph, x = quantized(nodes, scheme=Scheme(bias_correction=True)), images()
    assert [op.name for op in graph.operators] == ["p", "a", "p/requantized", "both", "y"]
    error = (real(graph, x) - run(nodes, {INPUT: x})).mean((0, 2, 3)).abs()
    assert error.max() < graph.tensors["y"].scale / 8


def test_what_is_equalized_keeps_its_outputs():
    """A tensor that is read once inside may be an output too."""
    from nas.quant.equalize import equalize

    torch.manual_seed(0)
    nodes: list[Node] = [
        Conv("a", INPUT, torch.randn(4, 4, 1, 1) * torch.tensor([0.1, 1, 2, 5]).reshape(4, 1, 1, 1), torch.randn(4)),
        Conv("b", "a", torch.randn(4, 4, 1, 1), torch.randn(4), activation="relu"),
        Conv("c", "b", torch.randn(4, 4, 1, 1), torch.randn(4)),
    ]
    env, changed = {INPUT: images()}, {INPUT: images()}
    run(nodes, env)
    run(equalize(nodes, [{INPUT: images()}], ("b", "c")), changed)
    assert torch.equal(env["b"], changed["b"])
    run(equalize(nodes, [{INPUT: images()}]), changed)
    assert not torch.equal(env["b"], changed["b"])
    torch.testing.assert_close(env["c"], changed["c"], rtol=1e-4, atol=1e-4)


REFUSED = ("turned", "places", "rows", "index", "map", "scalar", "mixed")


def test_everything_that_is_refused_is_named_at_once():
    nodes: list[Node] = [
        Slice("turned", INPUT, (5, 0, 0), (6, 8, 4), (-1, 1, 1)),
        PRelu("places", "turned", torch.randn(1, 4, 6, 8)),
        ArgMax("rows", "places", -3),
        ArgMax("classes", "places"),
        Sigmoid("index", "classes"),
        Mean("vector", "places", keep_dims=False),
        TransposedConv("map", "vector", torch.randn(4, 4, 3, 3), torch.randn(4), 2),
        Mean("scalar", "vector", (-1,), keep_dims=False),
        Mean("pixel", "places"),
        Concat("mixed", ("vector", "pixel")),
    ]
    with pytest.raises(QuantizationError) as refused:
        lowerable(nodes, SHAPE)
    message = str(refused.value)
    assert [f"'{name}' " in message for name in REFUSED] == [True] * 7
    assert "'classes' " not in message.replace("indices 'classes'", "") and "\n" not in message


def test_a_constant_that_is_joined_with_a_vector():
    joined = [Mean("mean", INPUT, keep_dims=False), Const("k", torch.ones(1, 3, 1, 1)), Concat("y", ("mean", "k"))]
    assert quantized(joined).tensors["y"].file_shape == (1, 7)


@pytest.mark.parametrize(
    ("kind", "read", "result", "words"),
    [
        (Add, 1000, 0.01, "'y'.*requantization scale"),
        (Mul, 10000, 2000, "'y'.*requantization scale"),  # 78 * 78 / 16
        (HardSwish, 1000, 0.01, "'y'.*TFLite takes up to 128"),
    ],
)
def test_scales_that_no_kernel_takes(kind, read, result, words):
    node = kind("y", INPUT) if kind is HardSwish else kind("y", INPUT, INPUT)
    with pytest.raises(QuantizationError, match=words):
        lower([node], {INPUT: (-read, read), "y": (-result, result)}, SHAPE)


def test_a_product_of_fine_scales_may_be_finer_still():
    (op,) = lower([Mul("y", INPUT, INPUT)], {INPUT: (-0.1, 0.1), "y": (-1e-4, 1e-4)}, SHAPE).operators
    assert isinstance(op, QMul)
