"""Tensors of fewer than 8 bits: their levels, whose bits they are, and that 8 bits are as ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas.errors import ConfigError, QuantizationError
from nas.lcpaq.policy import ACTIVATION_BITS, Policy, applied, policy_of, ties
from nas.quant import post_training, simulate
from nas.quant.float_graph import (
    INPUT,
    Add,
    AveragePool,
    Concat,
    Conv,
    FullyConnected,
    Mean,
    Node,
    Pad,
    Resize,
    Weighted,
    stepwise,
)
from nas.quant.integer_graph import IntegerGraph, IntTensor
from nas.quant.lower import lower
from nas.quant.ranges import (
    IMAGE_RANGE,
    LeastSquares,
    Parameters,
    activation_parameters,
    calibrate,
    lowest_level,
    shared,
    widths_of,
)
from nas.quant.scheme import Scheme
from tests.nas.lcpaq.lcpaq_problem import small_nodes

WIDTHS = st.sampled_from(ACTIVATION_BITS)
ENDS = st.floats(-50, 50, width=32)


def images(count: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 256, (count, 3, 8, 8), generator=generator) - 128) / 128


def at(bits: int, nodes: list[Node]) -> list[Node]:
    """Every layer reads `bits`."""
    return [replace(node, input_bits=bits) if isinstance(node, Weighted) else node for node in nodes]


def integers(graph: IntegerGraph, x: Tensor) -> dict[str, Tensor]:
    """Every tensor of the graph."""
    env = {graph.input: simulate.quantize(x, graph.tensors[graph.input])}
    simulate.simulate(graph.operators, graph.tensors, env)
    return env


def plain_parameters(low: float, high: float) -> Parameters:
    """int8's, written out: S = (beta - alpha) / 255 and the zero point that puts alpha at -128."""
    if (low, high) == IMAGE_RANGE:
        return 1 / 128, 0
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, 1e-9)))
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


@given(ENDS, ENDS, WIDTHS)
def test_a_range_has_as_many_levels_as_its_bits_and_zero_is_one_of_them(a: float, b: float, bits: int) -> None:
    low, high = min(a, b), max(a, b)
    scale, zero_point = activation_parameters(low, high, bits)
    span = max(high, 0.0) - min(low, 0.0)
    assert scale == pytest.approx(max(span / (2**bits - 1), 1e-9), rel=1e-6)
    assert lowest_level(bits) <= zero_point <= 127
    values = torch.linspace(low, high, 2000)
    q = simulate.quantize(values, IntTensor("x", (1, 1, 1), scale, zero_point))
    # float32 may round the lower end's last tie otherwise than the zero point was rounded.
    assert q.max() <= 127 and q.min() >= lowest_level(bits) - 1
    if span > 1e-3:
        assert float((simulate.dequantize(q, IntTensor("x", (1, 1, 1), scale, zero_point)) - values).abs().max()) <= (
            1.001 * scale
        )


@given(ENDS, ENDS)
def test_8_bits_are_int8s_own(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    assert activation_parameters(low, high) == activation_parameters(low, high, 8) == plain_parameters(low, high)
    assert activation_parameters(*IMAGE_RANGE) == (1 / 128, 0) == plain_parameters(*IMAGE_RANGE)


@pytest.mark.parametrize("scheme", [Scheme(), Scheme("tensor", "mse", equalize=True, bias_correction=True)])
def test_8_bits_everywhere_give_the_same_graph(scheme: Scheme) -> None:
    nodes, x = small_nodes(), images()
    graph = post_training.quantize(nodes, [x], (8, 8, 3), scheme)
    again = post_training.quantize(at(8, nodes), [x], (8, 8, 3), scheme)
    policy = Policy(dict.fromkeys(policy_of(nodes).bits, 8))
    by_policy = post_training.quantize(applied(nodes, policy), [x], (8, 8, 3), scheme)
    for other in (again, by_policy):
        assert other.tensors == graph.tensors
        for a, b in zip(graph.operators, other.operators, strict=True):
            for name in ("weight", "weight_scale", "bias"):
                assert np.array_equal(getattr(a, name, 0), getattr(b, name, 0))
    prepared = post_training.prepared(nodes, [{INPUT: x}], scheme)
    ranges = calibrate(prepared, [x], LeastSquares() if scheme.observer == "mse" else lambda y: (y.min(), y.max()))
    for name, (low, high) in ranges.items():
        if name != "probabilities":  # whose scale is its kernel's
            tensor = graph.tensors[name]
            assert (tensor.scale, tensor.zero_point) == plain_parameters(float(low), float(high))


@given(WIDTHS, st.integers(0, 2**16), st.sampled_from([0.05, 1.0, 30.0]))
def test_rectified_tensors_never_use_more_levels_than_their_bits(bits: int, seed: int, spread: float) -> None:
    """Whatever the images: the range is clamped above, the activation clamps below."""
    nodes = at(bits, small_nodes(seed))
    try:
        graph = post_training.quantize(nodes, [images(seed=seed)], (8, 8, 3))
    except QuantizationError as error:
        assert "dead" in str(error)
        return
    wild = spread * torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    env = integers(graph, wild)
    for node in nodes:
        if isinstance(node, Weighted) and node.activation == "relu6" and node.name != "logits":
            read = any(isinstance(other, Weighted) and other.x == node.name for other in nodes)
            assert len(env[node.name].unique()) <= 2 ** (bits if read else 8)
            assert env[node.name].min() >= lowest_level(bits if read else 8)


@pytest.mark.parametrize("bits", ACTIVATION_BITS)
def test_calibration_images_use_as_many_levels_as_the_bits(bits: int) -> None:
    nodes, x = at(bits, small_nodes()), images(16)
    graph = post_training.quantize(nodes, [x], (8, 8, 3))
    env = integers(graph, x)
    assert len(env[INPUT].unique()) == 2**bits
    used = {name: len(env[name].unique()) for name in ("stem", "depthwise", "mean")}
    assert all(2 <= count <= 2**bits for count in used.values()) and used["stem"] > 2 ** (bits - 1)
    assert len(env["project"].unique()) > 2**bits or bits == 8  # no layer reads it
    assert graph.size_bits == post_training.quantize(small_nodes(), [x], (8, 8, 3)).size_bits


def test_a_full_range_is_clamped_at_6_and_a_tensor_that_goes_below_its_range_goes_on() -> None:
    """What remains: nothing clamps at the lower end of a tensor that no activation cut."""
    generator = torch.Generator().manual_seed(1)
    first = Conv("first", INPUT, 40 * torch.randn(4, 3, 1, 1, generator=generator), torch.zeros(4), activation="relu6")
    second = Conv("second", "first", torch.randn(4, 4, 1, 1, generator=generator), torch.zeros(4))
    last = Conv("last", "second", torch.randn(4, 4, 1, 1, generator=generator), torch.zeros(4))
    ranges = {INPUT: IMAGE_RANGE, "first": (0.0, 6.0), "second": (-1.0, 1.0), "last": (-5.0, 5.0)}
    graph = lower(at(4, [first, second, last]), ranges, (8, 8, 3))
    assert graph.tensors["first"].zero_point == 127 - 15
    assert graph.tensors["first"].scale == pytest.approx(0.4)
    env = integers(graph, images(8))
    assert sorted(env["first"].unique().tolist()) == list(range(112, 128))
    assert env["second"].max() == 127 and env["second"].min() < 112


def test_fewer_bits_err_more() -> None:
    nodes, x = small_nodes(), images(16)
    *_, (_, expected) = stepwise(nodes[:-1], {INPUT: x})

    def error(bits: int) -> float:
        graph = post_training.quantize(at(bits, nodes[:-1]), [x], (8, 8, 3))
        y = simulate.dequantize(integers(graph, x)["logits"], graph.tensors["logits"])
        return float((y - expected).square().mean())

    errors = [error(bits) for bits in (4, 6, 8)]
    assert errors[0] > 4 * errors[1] > 4 * errors[2]


def test_the_least_squares_range_is_that_of_the_width() -> None:
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    narrow, wide = LeastSquares(bits=4)(x), LeastSquares()(x)
    assert narrow[1] < 0.85 * wide[1]
    nodes = [
        Conv("a", INPUT, torch.eye(3)[:, :, None, None], torch.zeros(3)),
        Conv("b", "a", torch.eye(3)[:, :, None, None], torch.zeros(3)),
    ]
    x = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    by_width = [calibrate(at(bits, nodes), [x], LeastSquares()) for bits in (4, 8)]
    assert by_width[0]["a"][1] < 0.85 * by_width[1]["a"][1] and by_width[0]["b"] == by_width[1]["b"]


# Whose bits they are


def conv(name: str, x: str, bits: int = 8, channels: int = 2) -> Conv:
    return Conv(name, x, torch.ones(2, channels, 1, 1), torch.zeros(2), input_bits=bits)


def branches(**bits: int) -> list[Node]:
    """Two layers read a map, one its pooled copy, one a joined tensor, one a mean; a last one reads a sum."""
    return [
        conv("stem", INPUT, channels=3),
        conv("a", "stem", bits.get("a", 8)),
        Pad("padded", "stem", (1, 1), (1, 1)),
        AveragePool("pooled", "padded", 3, 1),
        conv("b", "pooled", bits.get("b", 8)),
        Mean("mean", "stem"),
        conv("c", "mean", bits.get("c", 8)),
        Resize("broadcast", "c", (8, 8)),
        Concat("joined", ("a", "broadcast")),
        conv("d", "joined", bits.get("d", 8), 4),
        Add("sum", "b", "d"),
        Mean("summed", "sum"),
        FullyConnected("logits", "summed", torch.ones(2, 2), torch.zeros(2), input_bits=bits.get("logits", 8)),
    ]


def test_a_tensors_bits_are_its_readers_and_those_around_a_rearrangement_are_one() -> None:
    nodes = branches(a=5, b=5, c=4, d=6)
    assert widths_of(nodes) == {
        **{
            INPUT: 8,
            "stem": 5,
            "padded": 5,
            "pooled": 5,
            "mean": 4,
            "b": 8,
            "d": 8,
            "sum": 8,
            "summed": 8,
            "logits": 8,
        },
        **{"a": 6, "c": 6, "broadcast": 6, "joined": 6},
    }
    groups = {group.tensors: group for group in shared(nodes)}
    assert groups["stem", "padded", "pooled"].sources == ("stem",)
    assert groups["stem", "padded", "pooled"].readers == ("a", "b")
    assert groups["a", "c", "broadcast", "joined"].sources == ("a", "c")
    assert sorted(name for group in groups for name in group) == sorted([INPUT, *(node.name for node in nodes)])


def test_readers_that_disagree_are_named() -> None:
    nodes = branches(a=5, b=6)
    for refused in (
        lambda: widths_of(nodes),
        lambda: post_training.quantize(nodes, [images()], (8, 8, 3)),
        lambda: lower(nodes, {}, (8, 8, 3)),
    ):
        with pytest.raises(QuantizationError, match=r"layers 'a' and 'b' .* integers .'stem'., .* 5 bits, .* 6:"):
            refused()
    with pytest.raises(ConfigError, match="policy: layers 'a' and 'b' read the same"):
        applied(branches(), Policy({"a": 8}, {"a": 4}))


def test_a_policy_is_applied_and_read_back() -> None:
    policy = Policy({"stem": 8, "a": 4, "b": 2, "c": 8, "d": 8, "logits": 8}, {"a": 5, "b": 5, "c": 4, "stem": 7})
    changed = applied(branches(), policy)
    assert policy_of(changed) == policy
    assert policy_of(applied(changed, Policy({"d": 3}))).activations == dict(policy.activations)
    for bits in (2, 3, 9):
        with pytest.raises(ConfigError, match=f"'a': activations take 4 to 8 bits, not {bits}"):
            applied(branches(), Policy({"a": 8}, {"a": bits}))


def test_layers_that_read_one_tensor_are_tied_where_activations_have_widths() -> None:
    nodes = branches()
    assert ties(nodes) == (("b", "d"),)
    assert ties(nodes, activations=True) == (("a", "b", "d"),)  # a and b read the map, b and d are added
    assert ties([conv("a", INPUT), conv("b", INPUT)], activations=True) == (("a", "b"),)
    assert ties([conv("a", INPUT), conv("b", "a")], activations=True) == ()
