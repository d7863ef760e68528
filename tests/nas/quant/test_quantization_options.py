"""Observers, cross-layer equalization, bias correction, and the tree that shares them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nas.errors import ConfigError, QuantizationError
from nas.networks.blocks import SuperBlock, recalibrate
from nas.noise import NsrReference
from nas.nsr import BlockData, block_input, evaluate_all
from nas.quant import post_training, simulate
from nas.quant.bias_correction import correct_biases
from nas.quant.equalize import CLIP, equalize
from nas.quant.float_graph import INPUT, Add, Conv, run, stepwise
from nas.quant.folding import fold_layers
from nas.quant.integer_graph import QConv
from nas.quant.lower import lower
from nas.quant.ranges import (
    OBSERVERS,
    LeastSquares,
    Percentile,
    activation_parameters,
    calibrate,
    minmax,
    observe,
)
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.weights import quantize_weight
from nas.space import Block, SearchSpace

SPACE = SearchSpace(
    "tiny", 8, 8, (Block(2, 12, 2, 1), Block(1, 12, 3, 1, dilation=2)), kernels=(3, 5), expansions=(2, 3)
)
EVERYTHING = [
    Scheme("tensor", "mse", equalize=True, bias_correction=True),
    Scheme("channel", "percentile", bias_correction=True),
    Scheme("tensor", equalize=True),
    Scheme("channel", rounding="adaptive"),
    Scheme("channel", rounding="adaptive all"),
    Scheme("tensor", "mse", equalize=True, bias_correction=True, few_bits="symmetric", rounding="adaptive"),
]


def uneven_chain(seed: int, bits: int = 8) -> tuple[list[Conv], torch.Tensor]:
    """Expand -> depthwise -> project whose channels differ by orders of magnitude, some of them clipped by RELU6."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(torch.randn(24, generator=generator) * 1.2)
    x = torch.randn(3, 8, 12, 10, generator=generator)

    def weights(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / (shape[1] * shape[2] ** 2) ** 0.5

    rows = spread[:, None, None, None]
    bias = torch.randn(24, generator=generator) * 0.3
    nodes = [
        Conv("expand", INPUT, weights(24, 8, 1, 1) * rows, bias * spread, activation="relu6", bits=bits),
        Conv("depthwise", "expand", weights(24, 1, 3, 3) / rows, bias, activation="relu6", bits=bits),
        Conv("project", "depthwise", weights(8, 24, 1, 1), torch.randn(8, generator=generator), bits=bits),
    ]
    return nodes, x


def weight_error(conv: Conv) -> float:
    """Squared error of the weights at a per-tensor scale, as a share of each channel's power, averaged."""
    q = quantize_weight(conv, 0.02, "tensor")
    difference = torch.from_numpy(q.weight * q.scale).float() - conv.weight
    power = conv.weight.square().mean((1, 2, 3))
    return float((difference.square().mean((1, 2, 3)) / power).mean())


@pytest.mark.parametrize("seed", range(4))
def test_equalization_keeps_the_float_function_and_evens_out_the_weights(seed):
    nodes, x = uneven_chain(seed)
    before, after = dict(stepwise_results(nodes, x)), {}
    clipped = {name: before[name].amax((0, 2, 3)) >= CLIP for name in ("expand", "depthwise")}
    assert clipped["expand"].any() and not clipped["expand"].all()
    equalized = equalize(nodes, [{INPUT: x}])
    after = dict(stepwise_results(equalized, x))
    torch.testing.assert_close(after["project"], before["project"], rtol=1e-5, atol=1e-5)
    for name, stays in clipped.items():  # a channel that reached the clip is as it was, and no other reaches it
        torch.testing.assert_close(after[name][:, stays], before[name][:, stays], rtol=1e-5, atol=1e-5)
        assert (after[name].amax((0, 2, 3))[~stays] < CLIP).all()
        assert not torch.equal(after[name], before[name])
    for old, new in zip(nodes, equalized, strict=True):
        assert new.weight.abs().max() <= old.weight.abs().max() * (1 + 1e-6), new.name
    assert sum(map(weight_error, equalized)) < 0.8 * sum(map(weight_error, nodes))


def test_a_channel_beyond_six_is_free_where_relu_follows():
    """RELU commutes with any scale: what RELU6 would hold back is equalized, and the function stays."""
    clipped, x = uneven_chain(0)
    nodes = [replace(conv, activation="none" if conv.activation == "none" else "relu") for conv in clipped]
    before = run(nodes, {INPUT: x})
    equalized = equalize(nodes, [{INPUT: x}])
    torch.testing.assert_close(run(equalized, {INPUT: x}), before, rtol=1e-5, atol=1e-4)
    beyond = run(nodes[:1], {INPUT: x}).amax((0, 2, 3)) >= CLIP
    moved = (equalized[0].weight != nodes[0].weight).flatten(1).any(1)
    held = (equalize(clipped, [{INPUT: x}])[0].weight == clipped[0].weight).flatten(1).all(1)
    assert beyond.any() and moved[beyond].all() and held[beyond].all()
    assert sum(map(weight_error, equalized)) < 0.8 * sum(map(weight_error, nodes))


def stepwise_results(nodes, x):
    return ((node.name, y) for node, y in stepwise(nodes, {INPUT: x}))


def test_without_clipped_channels_equalization_is_equation_11():
    """Both weights' ranges become sqrt(r1 r2), up to one factor for the entire tensor."""
    (expand, depthwise, _), x = uneven_chain(5)
    loud = replace(expand, weight=expand.weight * 1e-3, bias=expand.bias * 1e-3)
    x = x.clone()
    first, second = equalize([loud, depthwise], [{INPUT: x}])
    shares = [conv.weight.abs().amax((1, 2, 3)) / conv.weight.abs().max() for conv in (first, second)]
    peak = run([first], {INPUT: x}).amax((0, 2, 3))
    free = peak < 0.79 * run([loud], {INPUT: x}).amax()  # what HEADROOM did not hold back
    assert free.sum() > 12
    torch.testing.assert_close(shares[0][free] / shares[1][free], torch.ones(int(free.sum())), rtol=0.02, atol=0)


def test_only_a_map_with_one_reader_is_rescaled():
    nodes, x = uneven_chain(0)
    read_twice = [*nodes[:2], Add("sum", "expand", "depthwise")]
    untouched = equalize(read_twice, [{INPUT: x}])
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(untouched[:2], nodes[:2], strict=True))


def test_equalization_lowers_the_noise_of_a_per_tensor_scale():
    """At four bits, where the weights' error is what counts."""
    for seed in range(4):
        nodes, x = uneven_chain(seed, bits=4)
        expected = run(nodes, {INPUT: x})
        noise = []
        for scheme in (Scheme("tensor"), Scheme("tensor", equalize=True)):
            graph = post_training.quantize(nodes, [x], (12, 10, 8), scheme, minmax(x))
            y = simulate.dequantize(
                simulate.run(graph, simulate.quantize(x, graph.tensors[INPUT])), graph.tensors["project"]
            )
            noise.append(float((y - expected).square().mean()))
        assert noise[1] < 0.7 * noise[0], seed


@pytest.mark.parametrize("batches", [1, 3])
def test_bias_correction_takes_out_the_mean_error_of_every_channel(batches):
    nodes, x = uneven_chain(1, bits=4)
    x = x + 1  # weights' errors would cancel over zero-mean inputs
    parts = list(x.split(3 // batches))
    plain = lower(nodes, calibrate(nodes, parts) | {INPUT: minmax(x)}, (12, 10, 8), "tensor")
    integers = [{INPUT: simulate.quantize(part, plain.tensors[INPUT])} for part in parts]
    corrected = correct_biases(nodes, plain.operators, plain.tensors, [{INPUT: p} for p in parts], integers)
    before, after = (mean_errors(nodes, ops, plain.tensors, x) for ops in (plain.operators, corrected))
    for name in before:  # half a unit of the bias is what rounding leaves
        assert np.all(after[name] <= 0.5 + 1e-3), name
        assert before[name].max() > 5, name
    for old, new in zip(plain.operators, corrected, strict=True):
        assert (old.weight == new.weight).all() and new.bias.dtype == np.int32
    full = simulate.run(replace(plain, operators=tuple(corrected)), simulate.quantize(x, plain.tensors[INPUT]))
    assert torch.equal(torch.cat([env["project"] for env in integers]), full)


def mean_errors(nodes, operators, tensors, x) -> dict[str, np.ndarray]:
    """|E[float] - E[integer]| of each channel's pre-activation, in units of the bias."""
    env, q, errors = {INPUT: x}, {INPUT: simulate.quantize(x, tensors[INPUT])}, {}
    for node, op in zip(nodes, operators, strict=True):
        unit = np.float64(tensors[op.x].scale) * op.weight_scale
        accumulator = simulate.accumulate(op, q[op.x], tensors[op.x]).double().mean((0, 2, 3)).numpy()
        pre = replace(node, activation="none")(env).double().mean((0, 2, 3)).numpy()
        errors[node.name] = np.abs(pre / unit - accumulator)
        env[node.name], q[node.name] = node(env), simulate.apply(op, q, tensors)
    return errors


def data_of(block: int) -> BlockData:
    generator = torch.Generator().manual_seed(block)
    channels = SPACE.input_channels(block)
    shape = (4, 12, 4, 5) if block == 1 else (4, 12, 8, 10)
    calibration, evaluation = (torch.randn(4, channels, 8, 10, generator=generator) for _ in range(2))
    return BlockData(calibration, evaluation, torch.randn(shape, generator=generator))


@pytest.mark.parametrize("scheme", EVERYTHING, ids=str)
@pytest.mark.parametrize("block", [1, 2])
def test_the_tree_equals_every_subnet_evaluated_separately(block, scheme):
    torch.manual_seed(block)
    supernet, data = SuperBlock(SPACE, block), data_of(block)
    source = block_input(data, scheme)
    subnets = list(SPACE.subnets(block, 4))
    some = set(subnets[2 :: 5 if block == 1 else 21])
    for evaluated in evaluate_all(supernet, data, 4, scheme, set(subnets) - some):
        x = data.x_calibration
        for layer in supernet.path(evaluated.subnet):
            recalibrate(layer, x)  # statistics come from the equalized layers before it
            nodes = fold_layers([layer], "layer", INPUT)
            x = run(post_training.prepared(nodes, [{INPUT: x}], scheme), {INPUT: x})
        nodes = fold_layers(supernet.path(evaluated.subnet), f"b{block}", INPUT, 4)
        input_range = observe(data.x_calibration, INPUT, OBSERVERS[scheme.observer])
        graph = post_training.quantize(nodes, [data.x_calibration], source.shape, scheme, input_range)
        q = simulate.run(graph, simulate.quantize(data.x_evaluation, source))
        output = simulate.dequantize(q, graph.tensors[graph.output])
        assert evaluated.graph.tensors == graph.tensors
        for ours, theirs in zip(evaluated.graph.operators, graph.operators, strict=True):
            if isinstance(ours, QConv):
                assert (ours.weight == theirs.weight).all() and (ours.bias == theirs.bias).all(), ours.name
        assert evaluated.nsr == NsrReference(data.target).nsr([output])
        np.testing.assert_array_equal(evaluated.golden_output, simulate.as_nhwc(q[:1]))


def test_the_percentile_leaves_out_that_many_values():
    generator = torch.Generator().manual_seed(0)
    for count in (7, 1000, 10_000, 25_000):
        x = torch.randn(count, generator=generator)
        ordered = sorted(x.tolist())
        left_out = round(count * 0.0001 - 0.49)
        assert Percentile()(x) == (ordered[left_out], ordered[-1 - left_out])
    assert Percentile(90.0)(torch.arange(100.0)) == (10.0, 89.0)
    assert Percentile(90.0)(torch.eye(20)) == (0.0, 1.0)  # nearly all zeros: nothing would be left


def test_least_squares_against_brute_force():
    """On the values themselves, not on a histogram: no candidate is better by more than a per cent."""
    generator = torch.Generator().manual_seed(1)
    for tail in (0.0, 1.0, 3.0):
        for rectified in (False, True):
            x = torch.randn(2, 8, 30, 30, generator=generator)
            x = x * torch.exp(tail * torch.randn(x.shape, generator=generator))
            x = x.clamp(min=0) if rectified else x
            low, high = minmax(x)
            observer = LeastSquares()
            errors = {f: squared_error(x, (low * f, high * f)) for f in observer.factors()}
            found = observer(x)
            assert squared_error(x, found) <= 1.01 * min(errors.values())
            assert found[0] == pytest.approx(low * found[1] / high, abs=1e-6)
    lonely = torch.cat([torch.randn(200_000, generator=generator), torch.tensor([30.0])])
    assert LeastSquares()(lonely)[1] < 25  # one value is not worth everybody's step
    assert LeastSquares()(torch.zeros(5)) == (0.0, 0.0)


def squared_error(x: torch.Tensor, interval: tuple[float, float]) -> float:
    scale, zero_point = activation_parameters(*interval)
    q = (torch.round(x.double() / scale) + zero_point).clamp(-128, 127)
    return float(((q - zero_point) * scale - x.double()).square().sum())


@pytest.mark.parametrize("name", OBSERVERS)
def test_several_batches_merge_by_the_widest_and_nan_is_named(name):
    generator = torch.Generator().manual_seed(2)
    nodes = [Conv("a", INPUT, torch.randn(4, 3, 3, 3, generator=generator), torch.zeros(4))]
    batches = [torch.randn(2, 3, 9, 9, generator=generator) * k for k in (1.0, 3.0, 2.0)]
    each = [calibrate(nodes, [batch], OBSERVERS[name])["a"] for batch in batches]
    merged = calibrate(nodes, batches, OBSERVERS[name])["a"]
    assert merged == (min(low for low, _ in each), max(high for _, high in each))
    with pytest.raises(QuantizationError, match="'a'"):
        calibrate(nodes, [batches[0] * float("nan")], OBSERVERS[name])


def test_an_unknown_observer_names_the_near_miss():
    with pytest.raises(ConfigError, match=r"quantization\.observer.*'minmx'; did you mean 'minmax'"):
        Scheme(observer="minmx")
    with pytest.raises(ConfigError, match="there are minmax, percentile, mse"):
        Scheme(observer="entropy")
    assert Scheme() == DEFAULT
