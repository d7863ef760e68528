"""Ranges over all calibration batches at once, and order statistics without sorting, against slow ways."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import QuantizationError
from nas.quant import pooled_ranges, post_training
from nas.quant.float_graph import INPUT, Conv, Mean, Node, Reshape, run
from nas.quant.pooled_ranges import calibrate_pooled, sample
from nas.quant.ranges import Percentile, calibrate, minmax
from nas.quant.scheme import Scheme
from nas.quant.weights import quantize_weight


def network() -> list[Node]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        Conv("a", INPUT, noise(6, 3, 3, 3), noise(6), activation="relu"),
        Conv("b", "a", noise(4, 6, 1, 1), noise(4)),
        Mean("mean", "b"),
        Reshape("out", "mean", (4,)),
    ]


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, 9, 7, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6000), st.integers(0, 99), st.sampled_from(["normal", "rectified", "few values"]), st.data())
def test_the_nth_element_is_that_of_the_sorted_ones(length, seed, kind, data):
    x = torch.randn(length, generator=torch.Generator().manual_seed(seed))
    x = x.relu() if kind == "rectified" else x.round() if kind == "few values" else x
    n = data.draw(st.integers(1, length) | st.integers(1, min(length, 9)))
    ordered = x.sort().values
    assert Percentile.nth(x, n, largest=False) == float(ordered[n - 1])
    assert Percentile.nth(x, n, largest=True) == float(ordered[-n])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_range_is_that_of_the_values_of_all_batches(memory):
    nodes, batches = network(), [images(3, 1), images(2, 2)]
    found = calibrate_pooled(nodes, [x.contiguous(memory_format=memory) for x in batches], Percentile(95))
    env = {INPUT: torch.cat(batches)}
    run(nodes, env)
    for name in ("a", "b"):
        assert found[name] == pytest.approx(Percentile(95)(env[name]), rel=1e-5)
    apart = calibrate(nodes, batches, Percentile(95))
    assert found["b"][1] - found["b"][0] < apart["b"][1] - apart["b"][0]


def test_outputs_keep_their_ends_and_so_do_tensors_of_their_scale():
    nodes, batches = network(), [images(30, 1)]
    found, ends = calibrate_pooled(nodes, batches, Percentile(80), ["out"]), calibrate(nodes, batches)
    assert found["out"] == found["mean"] == ends["out"]
    assert found["b"] != ends["b"]


def test_smallest_and_largest_values_are_never_those_of_a_sample(monkeypatch):
    monkeypatch.setattr(pooled_ranges, "SAMPLE", 10)
    nodes, batches = network(), [images(3, 1), images(2, 2)]
    sampled = calibrate_pooled(nodes, batches, minmax)
    ends = calibrate(nodes, batches)
    assert sampled["b"] != ends["b"]
    assert post_training.quantize(nodes, batches, (9, 7, 3), Scheme(pooled=True)).tensors == (
        post_training.quantize(nodes, batches, (9, 7, 3)).tensors
    )


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 4), st.integers(1, 400), st.booleans())
def test_a_sample_takes_enough_elements(shape, count, last):
    y = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    found = sample(y.contiguous(memory_format=torch.channels_last) if last else y, count)
    assert len(found) >= min(count, y.numel()) and len(set(found.tolist())) == len(found)


def test_a_sample_is_of_all_channels_rows_and_columns():
    channels = torch.arange(96.0)[:, None, None].expand(2, 96, 32, 32)
    for y in (channels, channels.contiguous(memory_format=torch.channels_last), channels.transpose(1, 3)):
        assert len(set(sample(y, 2000).tolist())) == 96


def test_what_is_not_finite_is_named():
    nodes, x = network(), images(2, 1)
    x[1, 0, 0, 0] = torch.inf
    with pytest.raises(QuantizationError, match="tensor 'a' holds NaN or infinity"):
        calibrate_pooled(nodes, [x], Percentile())


def test_weights_of_8_bits_are_rounded_adaptively_if_all_are():
    nodes, batches = network(), [images(4, 1)]
    of = {
        rounding: post_training.quantize(nodes, batches, (9, 7, 3), Scheme(rounding=rounding)).operators[0].weight
        for rounding in ("nearest", "adaptive", "adaptive all")
    }
    assert (of["nearest"] == of["adaptive"]).all() and (of["nearest"] != of["adaptive all"]).any()
    nearest = quantize_weight(nodes[0], 1 / 128, "channel")
    assert abs(of["adaptive all"].astype(int) - nearest.weight.transpose(0, 2, 3, 1)).max() == 1
