"""Adaptive rounding against every rounding of small layers, and against the nearest on deployed integers."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import QuantizationError
from nas.quant import simulate
from nas.quant.adaptive_rounding import MOST_INPUTS, adaptively_rounded, descended, gram_matrices
from nas.quant.float_graph import INPUT, Conv, FullyConnected, Mean, Node, run
from nas.quant.post_training import quantize
from nas.quant.scheme import FewBits, Granularity, Scheme
from nas.quant.weights import quantize_weight


def output_error(error: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Squared output error (groups, R) of weights off by `error` (groups, R, K), summed over the calibration."""
    return ((error @ gram) * error).sum(2)


def network(bits: int, seed: int = 0) -> list[Node]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.4

    return [
        Conv("stem", INPUT, noise(8, 3, 3, 3), noise(8), stride=2, activation="relu6", bits=bits),
        Conv("depthwise", "stem", noise(8, 1, 3, 3), noise(8), dilation=2, activation="relu6", bits=bits),
        Conv("project", "depthwise", noise(12, 8, 1, 1), noise(12), bits=bits),
        Mean("mean", "project"),
        FullyConnected("logits", "mean", noise(5, 12), noise(5), bits=bits),
    ]


def images(count: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 13, 10, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_product_with_the_last_axis_reads_every_row():
    rows = torch.randn(2, 7, 5)
    layer = FullyConnected("mixed", INPUT, torch.randn(3, 5), torch.zeros(3), bits=3)
    found = gram_matrices([layer], [{INPUT: rows}])["mixed"]
    torch.testing.assert_close(found, torch.einsum("nti,ntj->ij", rows.double(), rows.double())[None])
    (after,) = adaptively_rounded([layer], [{INPUT: rows}])
    assert isinstance(after, FullyConnected) and not torch.equal(after.weight, layer.weight)


@pytest.mark.parametrize("few_bits", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_no_layers_output_errs_more_than_by_the_nearest_and_most_err_less(
    bits: int, granularity: Granularity, few_bits: FewBits
):
    nodes, batches = network(bits), [images(6), images(3, 2)]
    rounded = adaptively_rounded(nodes, [{INPUT: batch} for batch in batches], granularity, few_bits)
    better = 0
    for before, after in zip(nodes, rounded, strict=True):
        if not isinstance(before, Conv | FullyConnected):
            assert after is before
            continue
        nearest = quantize_weight(before, 1.0, granularity, few_bits)
        on_grid = torch.from_numpy(nearest.weight * nearest.scale.reshape(-1, *[1] * (nearest.weight.ndim - 1)))
        worst, found = (sum(_measured(before, weight, nodes, x) for x in batches) for weight in (on_grid, after.weight))
        assert found <= worst * (1 + 1e-6)
        better += found < 0.99 * worst
    assert better >= 3


def _measured(node: Conv | FullyConnected, weight: torch.Tensor, nodes: list[Node], x: torch.Tensor) -> float:
    """The squared error of the layer's own output, before its activation, computed as the layer computes it."""
    env = {INPUT: x}
    run(nodes, env)
    kind = {"stride": node.stride, "dilation": node.dilation} if isinstance(node, Conv) else {}
    true, other = (type(node)("y", node.x, w, node.bias, **kind)(env) for w in (node.weight, weight))
    return float((true - other).double().square().sum())


def test_the_gram_matrix_gives_the_layers_output_error():
    nodes, x = network(4), images()
    grams = gram_matrices(nodes, [{INPUT: x}])
    for node in nodes:
        if isinstance(node, Conv | FullyConnected):
            moved = node.weight + torch.randn(node.weight.shape, generator=torch.Generator().manual_seed(3)) * 0.1
            error = (moved - node.weight).double().reshape(len(grams[node.name]), -1, grams[node.name].shape[1])
            assert float(output_error(error, grams[node.name]).sum()) == pytest.approx(
                _measured(node, moved, nodes, x), rel=1e-4
            )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3))
def test_a_descent_ends_where_no_flip_helps_and_never_above_the_nearest(seed: int, inputs: int, rows: int):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, inputs, 2 * inputs, generator=generator, dtype=torch.float64)
    gram = maps @ maps.transpose(1, 2)
    wanted = torch.randn(2, rows, inputs, generator=generator, dtype=torch.float64) * 4
    nearest = wanted.round().clamp(-7, 7)
    found = descended(nearest, wanted, gram, (torch.full((2, rows, 1), -7.0), torch.full((2, rows, 1), 7.0)))
    assert ((found - wanted).abs() < 1 + 1e-9).logical_or(found == nearest).all()
    least = output_error(found - wanted, gram)
    assert (least <= output_error(nearest - wanted, gram) + 1e-9).all()
    neighbours = wanted.floor() + wanted.ceil() - found  # the other neighbour of each
    for place in range(inputs):
        flipped = found.clone()
        flipped[:, :, place] = torch.where(
            neighbours[:, :, place].abs() <= 7, neighbours[:, :, place], found[:, :, place]
        )
        stays = (nearest[:, :, place] - wanted[:, :, place]).abs() <= 1e-3
        stays |= wanted[:, :, place].abs() > 7
        assert (stays | (output_error(flipped - wanted, gram) >= least - 1e-6)).all()
    for group, row in itertools.product(range(2), range(rows)):
        ways = [sorted({float(w.floor().clamp(-7, 7)), float(w.ceil().clamp(-7, 7))}) for w in wanted[group, row]]
        every = torch.tensor(list(itertools.product(*ways)), dtype=torch.float64)[None]
        best = output_error(every - wanted[group : group + 1, row : row + 1], gram[group : group + 1]).min()
        assert least[group, row] >= best - 1e-9


@pytest.mark.parametrize("few_bits", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_deployed_integers_are_the_ones_that_were_chosen(granularity: Granularity, few_bits: FewBits):
    nodes, x = network(4), images()
    rounded = adaptively_rounded(nodes, [{INPUT: x}], granularity, few_bits)
    graph = quantize(rounded, [x], (13, 10, 3), Scheme(granularity, few_bits=few_bits))
    for node, operator in zip(rounded, graph.operators, strict=True):
        if isinstance(node, Conv | FullyConnected):
            kernel = simulate.oihw(operator) if isinstance(node, Conv) else operator.weight
            scale = torch.from_numpy(operator.weight_scale).reshape(-1, *[1] * (kernel.ndim - 1))
            assert torch.allclose(torch.from_numpy(kernel.copy()) * scale, node.weight, atol=1e-5)


def test_what_has_no_images_is_refused_and_what_is_too_wide_keeps_its_weights():
    with pytest.raises(QuantizationError, match="no calibration images"):
        adaptively_rounded(network(4), [])
    wide: list[Node] = [
        FullyConnected("wide", INPUT, torch.randn(2, MOST_INPUTS + 1), torch.zeros(2)),
        FullyConnected("logits", "wide", torch.randn(2, 2), torch.zeros(2), bits=4),
    ]
    rounded = adaptively_rounded(wide, [{INPUT: torch.randn(4, MOST_INPUTS + 1, 1, 1)}])
    assert rounded[0] is wide[0] and rounded[1] is not wide[1]
