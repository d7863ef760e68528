"""Weights of few bits: the grid that loses least, against numpy written out; what 8 bits always were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nas.errors import QuantizationError
from nas.quant import simulate
from nas.quant.float_graph import INPUT, Conv, FullyConnected, run
from nas.quant.lower import lower
from nas.quant.post_training import quantize
from nas.quant.ranges import calibrate
from nas.quant.scheme import FewBits, Granularity, Scheme
from nas.quant.weights import SHARES, grid_of, on_grid, quantize_weight, symmetric_weight


@st.composite
def layers(draw: st.DrawFn, bits: st.SearchStrategy[int]) -> Conv:
    """Any convolution, with channels of all sizes, dead ones and one-sided ones among them."""
    outputs, inputs = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kernel, seed = draw(st.sampled_from([1, 3])), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
    weight *= torch.exp(3 * torch.randn(outputs, 1, 1, 1, generator=generator))
    kinds = torch.randint(4, (outputs,), generator=generator)
    weight[kinds == 0] = weight[kinds == 0].abs()
    weight[kinds == 1] *= draw(st.sampled_from([0.0, 1e-9, 1.0]))
    return Conv("c", "x", weight, torch.randn(outputs, generator=generator), bits=draw(bits))


def mean_of_squares(real: NDArray[np.float64], scale: float, low: float, steps: int) -> float:
    q = np.rint(real / scale).clip(low, low + steps)
    return float(np.square(q * scale - real).sum())


@settings(max_examples=150, deadline=None)
@given(layers(st.integers(2, 7)), st.sampled_from([0.001, 0.02, 3.0]), st.sampled_from(["channel", "tensor"]))
def test_few_bits_are_the_best_of_the_ranges_tried_in_every_channel(
    conv: Conv, input_scale: float, granularity: Granularity
):
    found = quantize_weight(conv, input_scale, granularity)
    rows = conv.weight.double().numpy().reshape(len(conv.weight) if granularity == "channel" else 1, -1)
    least = np.abs(conv.bias.double().numpy()) / (input_scale * 2.0**30)
    least = least if granularity == "channel" else [least.max()]
    steps = 2**conv.bits - 1
    assert found.offset is not None and found.scale.shape == found.offset.shape == (len(rows),)
    for row, q, scale, low, floor in zip(
        rows, found.weight.reshape(len(rows), -1), found.scale, found.offset, least, strict=True
    ):
        assert -steps <= low <= 0 <= low + steps and q.min() >= low and q.max() <= low + steps
        bottom, top = min(row.min(), 0.0), max(row.max(), 0.0)
        losses = []
        for share in SHARES:
            wide = max((top - bottom) * share / steps, floor, 1e-12)
            losses.append(mean_of_squares(row, wide, np.rint(bottom * share / wide), steps))
        ours = np.square(q * np.float64(scale) - row).sum()
        assert ours <= min(losses) * (1 + 1e-3) + 1e-12 * np.square(row).sum()


@settings(max_examples=100, deadline=None)
@given(layers(st.integers(2, 8)), st.sampled_from([0.001, 0.02]), st.sampled_from(["channel", "tensor"]))
def test_symmetric_weights_are_those_of_the_largest(conv: Conv, input_scale: float, granularity: Granularity):
    """Bit for bit as 8-bit weights always were; they do not depend on the setting."""
    found = quantize_weight(conv, input_scale, granularity, "symmetric")
    weight, bias = conv.weight.numpy(), conv.bias.numpy()
    qmax = 2 ** (conv.bits - 1) - 1
    peak = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64)
    scale = np.maximum(np.maximum(peak / qmax, np.abs(bias.astype(np.float64)) / (input_scale * 2.0**30)), 1e-12)
    if granularity == "tensor":
        scale = scale.max(keepdims=True)
    scale32 = scale.astype(np.float32)
    inverse = (np.float32(1) / scale32).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(found.weight, np.rint(weight * inverse).clip(-qmax, qmax).astype(np.int8))
    np.testing.assert_array_equal(found.scale, scale32)
    per_unit = np.float32(1) / (scale32 * np.float32(input_scale))
    np.testing.assert_array_equal(found.bias, np.rint(bias * per_unit).astype(np.int32))
    assert found.offset is None
    if conv.bits == 8:
        other = quantize_weight(conv, input_scale, granularity, "asymmetric")
        assert other.weight.tobytes() == found.weight.tobytes() and other.offset is None
        assert other.scale.tobytes() == found.scale.tobytes() and other.bias.tobytes() == found.bias.tobytes()


def test_a_channel_without_weights_keeps_its_bias():
    conv = Conv("c", "x", torch.zeros(2, 3, 1, 1), torch.tensor([100.0, 0.0]), bits=4)
    found = quantize_weight(conv, 1e-3, "channel")
    assert not found.weight.any()
    np.testing.assert_allclose(found.bias * (found.scale.astype(np.float64) * 1e-3), [100.0, 0.0], rtol=1e-6)


def test_nan_is_named():
    with pytest.raises(QuantizationError, match="layer 'c' holds NaN"):
        quantize_weight(Conv("c", "x", torch.full((2, 3, 1, 1), torch.nan), torch.zeros(2), bits=4), 1.0, "channel")


# What it gains, on weights like a trained MobileNetV2's: a few large ones, means off zero in depthwise kernels


def of_a_network(depthwise: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (96, 1, 3, 3) if depthwise else (24, 96, 1, 1)
    body = torch.randn(shape, generator=generator) / torch.rand(shape, generator=generator).clamp(min=0.2)
    return body + (torch.randn(96, 1, 1, 1, generator=generator) if depthwise else 0)


@pytest.mark.parametrize(("depthwise", "at_most"), [(True, 0.7), (False, 0.8)], ids=["depthwise", "pointwise"])
@pytest.mark.parametrize("bits", [4, 6])
def test_asymmetric_weights_lose_less(bits: int, depthwise: bool, at_most: float):
    conv = Conv("c", "x", of_a_network(depthwise), torch.zeros(96 if depthwise else 24), bits=bits)
    symmetric, asymmetric = (loss(conv, few_bits) for few_bits in ("symmetric", "asymmetric"))
    assert asymmetric < at_most * symmetric


def loss(conv: Conv, few_bits: FewBits) -> float:
    q = quantize_weight(conv, 1.0, "channel", few_bits)
    real = q.weight * q.scale.reshape(-1, 1, 1, 1)
    return float((torch.from_numpy(real) - conv.weight).double().square().sum())


# Whole graphs

ROUNDINGS = [Scheme(), Scheme(rounding="adaptive"), Scheme("tensor", few_bits="symmetric", rounding="adaptive")]


def two_layers(bits: int, seed: int = 0) -> list[Conv | FullyConnected]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        Conv("a", INPUT, noise(16, 3, 3, 3) + 0.2, noise(16), activation="relu6", bits=bits),
        Conv("b", "a", noise(16, 1, 3, 3) + 0.5, noise(16), activation="relu6", bits=bits),
        Conv("c", "b", noise(8, 16, 1, 1), noise(8)),
    ]


def images(count: int = 8, seed: int = 1) -> torch.Tensor:
    """Smooth ones, as photographs are."""
    coarse = torch.rand(count, 3, 4, 3, generator=torch.Generator().manual_seed(seed)) * 1.9 - 1
    return torch.nn.functional.interpolate(coarse, (10, 8), mode="bilinear")


@pytest.mark.parametrize("scheme", ROUNDINGS, ids=str)
def test_the_setting_leaves_8_bit_layers_as_they_are(scheme: Scheme):
    nodes, x = two_layers(8), images()
    plain = quantize(nodes, [x], (10, 8, 3), Scheme(scheme.granularity))
    for ours, theirs in zip(quantize(nodes, [x], (10, 8, 3), scheme).operators, plain.operators, strict=True):
        for part in ("weight", "weight_scale", "bias"):
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))
    few = quantize(two_layers(4), [x], (10, 8, 3), scheme)
    np.testing.assert_array_equal(few.operators[2].weight, plain.operators[2].weight)


@pytest.mark.parametrize("seed", range(3))
def test_each_step_lowers_the_deployed_error(seed: int):
    """Symmetric, asymmetric, adaptively rounded: on images that calibrated, and on others."""
    nodes, x, other = two_layers(4, seed), images(16), images(8, 2)
    expected = [run(nodes, {INPUT: part}) for part in (x, other)]
    errors: list[list[float]] = []
    for scheme in (Scheme(few_bits="symmetric"), Scheme(), Scheme(rounding="adaptive")):
        graph = quantize(nodes, [x], (10, 8, 3), scheme)
        results = [simulate.run(graph, simulate.quantize(part, graph.tensors[INPUT])) for part in (x, other)]
        reals = [simulate.dequantize(q, graph.tensors[graph.output]) for q in results]
        errors.append([float((y - z).square().mean()) for y, z in zip(reals, expected, strict=True)])
    for i in range(2):
        assert errors[0][i] > errors[1][i] > 1.1 * errors[2][i], errors


def test_weights_that_were_rounded_keep_their_grid_when_they_are_lowered():
    """A search for a range among weights that are rounded already could end on another one."""
    from nas.quant.adaptive_rounding import adaptively_rounded

    nodes, x = two_layers(4), images()
    rounded = adaptively_rounded(nodes, [{INPUT: x}])
    ranges = calibrate(nodes, [x])
    for node, op in zip(rounded, lower(rounded, ranges, (10, 8, 3)).operators, strict=True):
        assert node.grid is not None
        np.testing.assert_array_equal(op.weight_scale, node.grid.scale.numpy())
        kernel = torch.from_numpy(simulate.oihw(op).copy()) * node.grid.scale.reshape(-1, 1, 1, 1)
        assert torch.equal(kernel, node.weight)


BIASES: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda bias: bias, lambda bias: bias * 1e6]


@pytest.mark.parametrize("larger", BIASES, ids=["small", "huge"])
def test_a_rounded_dead_channel_keeps_its_bias_too(larger: Callable[[torch.Tensor], torch.Tensor]):
    from nas.quant.adaptive_rounding import adaptively_rounded

    conv = two_layers(4)[0]
    assert isinstance(conv, Conv)
    dead = replace(conv, weight=torch.cat([conv.weight[:1] * 1e-9, conv.weight[1:]]), bias=larger(conv.bias))
    (rounded,) = adaptively_rounded([dead], [{INPUT: images()}])
    assert isinstance(rounded, Conv)
    for input_scale in (1e-4, 1.0):
        found = quantize_weight(rounded, input_scale, "channel")
        real = found.bias * found.scale.astype(np.float64) * input_scale
        np.testing.assert_allclose(real, dead.bias.numpy(), rtol=1e-5, atol=found.scale.max() * input_scale)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(5, 3, 1, 1), (8, 1, 3, 3), (4, 6)]),
    bits=st.sampled_from([4, 6, 8]),
    granularity=st.sampled_from(["channel", "tensor"]),
    spread=st.sampled_from([1e-9, 1e-3, 1.0, 50.0]),
    seed=st.integers(0, 999),
)
def test_the_fast_symmetric_path_gives_the_grids_integers(
    shape: tuple[int, ...], bits: int, granularity: Granularity, spread: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * spread
    weight[0] = 0  # a dead channel, whose bias decides the scale
    bias = torch.randn(shape[0], generator=generator) * 10
    kind = Conv if len(shape) == 4 else FullyConnected
    node = kind("c", "x", weight, bias, bits=bits)
    fast = symmetric_weight(node, 0.02, granularity)
    grid = grid_of(node, 0.02, granularity, "symmetric")
    per_unit = 1 / (grid.scale * torch.tensor(0.02))
    np.testing.assert_array_equal(fast.weight, on_grid(weight, grid).to(torch.int8).numpy())
    np.testing.assert_array_equal(fast.scale, grid.scale.numpy())
    np.testing.assert_array_equal(fast.bias, torch.round(bias * per_unit).to(torch.int32).numpy())
