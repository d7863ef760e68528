"""Bits by integer programming, held to every combination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas.lcpaq.knapsack
from nas.errors import ConfigError
from nas.lcpaq.knapsack import Knapsack, least
from nas.lcpaq.policy import Options, Policy
from nas.lcpaq.program import relaxations, rounded_up, solve, totals
from nas.lcpaq.tied import ends_exempt, tied
from tests.nas.lcpaq.lcpaq_options import every_policy, fits, made_up

LIMITED = ("size_bits", "bops", "latency_us")
WIDTHS = ((8, 8), (6, 8), (4, 8))
SHARES = st.lists(st.floats(0.4, 1.05), min_size=3, max_size=3)
SOME = st.sets(st.sampled_from(LIMITED), min_size=1)
TIES = st.sampled_from([(), ((0, 2),), ((0, 1, 3), (2, 4))])


def limits_of(options: Options, shares: list[float], named: set[str]) -> dict[str, float]:
    """Shares of what 8 bits everywhere cost."""
    return {
        name: share * sum(float(row.max()) for row in options.costs[name])
        for name, share in zip(LIMITED, shares, strict=True)
        if name in named
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 9), TIES, SHARES, SOME, st.integers(0, 10**6))
def test_the_program_is_optimal(layers, ties, shares, named, seed):
    """Under one, two and three limits, with and without layers that share their bits."""
    options = made_up(layers, WIDTHS, seed, ties)
    limits = limits_of(options, shares, named)
    within = [costs for costs in every_policy(options) if fits(costs, limits)]
    if not within:
        with pytest.raises(ConfigError, match="no policy fits"):
            solve(options, limits)
        return
    found = solve(options, limits)
    costs = totals(options, found)
    assert fits(costs, limits)
    assert costs["perturbation"] == pytest.approx(min(c["perturbation"] for c in within), rel=1e-9)
    for group in options.groups:
        assert len({found.choice(name) for name in group}) == 1


@settings(max_examples=4, deadline=None)
@given(SHARES, st.integers(0, 10**6))
def test_the_program_is_optimal_for_twelve_layers(shares, seed):
    """531 441 policies, summed at once."""
    options = made_up(12, WIDTHS, seed)
    limits = limits_of(options, [max(share, 0.55) for share in shares], {"size_bits", "bops"})
    sums = {n: np.zeros(1) for n in options.costs}
    for i in range(12):
        sums = {n: np.add.outer(s, options.costs[n][i]).ravel() for n, s in sums.items()}
    within = np.all([sums[n] <= limit for n, limit in limits.items()], axis=0)
    best = sums["perturbation"][within].min()
    assert totals(options, solve(options, limits))["perturbation"] == pytest.approx(best, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(2, 9), st.integers(0, 10**6))
def test_a_knapsack_of_whole_numbers(groups, limits, tightness, levels, seed):
    """Many ties, negative costs, limits that are met exactly, groups of one."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, groups)
    group = np.repeat(np.arange(groups), sizes)
    cost = rng.integers(-levels, levels, len(group)).astype(float)
    rows = rng.integers(0, levels, (limits, len(group))).astype(float)
    most = rng.integers(0, levels * groups, limits).astype(float) / (1 + tightness)
    problem = Knapsack(group, cost, rows, most)
    ways = [np.array(way) for way in itertools.product(*(np.flatnonzero(group == g) for g in range(groups)))]
    fitting = [cost[way].sum() for way in ways if (rows[:, way].sum(axis=1) <= most).all()]
    taken = least(problem)
    if not fitting:
        assert taken is None
        return
    assert taken is not None
    assert problem.fits(taken)
    assert group[taken].tolist() == list(range(groups))
    assert cost[taken].sum() == min(fitting)


def test_an_answer_that_breaks_a_limit_by_a_hair_is_not_taken(monkeypatch):
    """1e-10 of the limit is within HiGHS's tolerance, and is still too much."""
    problem = Knapsack(
        np.array([0, 0, 1, 1]),
        np.array([0.0, 1.0, 0.0, 1.5]),
        np.array([[1.0, 0.0, 1.0, 0.0]]),
        np.array([2.0 - 1e-10]),
    )
    asked = []
    real = nas.lcpaq.knapsack._by_highs
    monkeypatch.setattr(nas.lcpaq.knapsack, "_rounded", lambda easy, shares: None)
    monkeypatch.setattr(nas.lcpaq.knapsack, "_by_highs", lambda *a: asked.append(len(a[1])) or real(*a))
    taken = least(problem)
    assert taken is not None
    assert taken.tolist() == [1, 2]
    assert asked == [0, 1]


def test_weights_and_activations_have_bits_of_their_own():
    """Bit operations fall with the activations' bits; the size does not."""
    options = made_up(4, ((8, 8), (8, 4), (4, 8), (4, 4)), 3)
    of_8 = totals(options, options.policy([0] * 4))
    found = solve(options, {"bops": of_8["bops"] / 4})
    assert set(found.bits.values()) == set(found.activations.values()) == {4}
    found = solve(options, {"size_bits": 0.7 * of_8["size_bits"]})
    assert set(found.bits.values()) == {4, 8}
    assert set(found.activations.values()) == {8}


def test_the_ends_keep_8_bits_and_leave_those_tied_to_them_free():
    options = ends_exempt(made_up(5, WIDTHS, 0, ((0, 2),)))
    least_size = sum(float(row.min()) for row in options.costs["size_bits"])
    assert list(solve(options, {"size_bits": least_size}).bits.values()) == [8, 4, 4, 4, 8]


def test_narrow_activations_stay_tied_to_ends_that_keep_8_bits():
    """Layers that read one tensor share its bits."""
    options = ends_exempt(made_up(5, ((8, 8), (8, 4), (4, 8), (4, 4)), 0, ((0, 2),)))
    least_size = sum(float(row.min()) for row in options.costs["size_bits"])
    with pytest.raises(ConfigError):
        solve(options, {"size_bits": least_size})  # layer 2 has 8 bits, as layer 0
    found = solve(options, {"size_bits": least_size + 4 * options.layers[2].weights})
    assert list(found.bits.values()) == [8, 4, 8, 4, 8]


def test_ends_without_a_choice_of_8_bits_are_refused():
    with pytest.raises(ConfigError, match="layer 'l0' is to keep 8 bits"):
        ends_exempt(made_up(3, ((6, 8), (4, 8)), 0))


@settings(max_examples=30, deadline=None)
@given(TIES, st.lists(st.floats(0.1, 0.8), min_size=3, max_size=3), SOME, st.integers(0, 10**6))
def test_the_relaxation_that_is_named_is_the_smallest(ties, shares, named, seed):
    options = made_up(5, WIDTHS, seed, ties)
    limits = limits_of(options, shares, named)
    every = every_policy(options)
    if any(fits(costs, limits) for costs in every):
        return
    ways = relaxations(options, limits)
    alone = {
        name: min(within)
        for name in limits
        if (within := [c[name] for c in every if fits(c, {n: v for n, v in limits.items() if n != name})])
    }
    if alone:
        assert {name: pytest.approx(value) for way in ways for name, value in way.items()} == alone
        assert [len(way) for way in ways] == [1] * len(alone)
    else:
        share = min(max(c[name] / limit for name, limit in limits.items()) for c in every)
        assert max(value / limits[name] for name, value in ways[0].items()) == pytest.approx(share)
    for way in ways:
        solve(options, {**limits, **way})
    with pytest.raises(ConfigError, match="no policy fits") as refused:
        solve(options, limits)
    assert all(f"{name} {rounded_up(value)}" in str(refused.value) for way in ways for name, value in way.items())


@given(st.floats(1e-3, 1e15))
def test_advice_is_rounded_up(value):
    shown = float(rounded_up(value))
    assert value * (1 - 1e-12) <= shown <= value * (1 + 2e-5)


def test_a_latency_that_no_bits_change_is_no_obstacle_at_its_own_sum():
    """Added up in another order the sum differs in its last digits."""
    options = made_up(9, WIDTHS, 1, ((1, 5), (2, 8)))
    latencies = tuple(np.full(3, 0.1 * (i + 1)) for i in range(9))
    options = Options(options.layers, options.choices, {**options.costs, "latency_us": latencies}, options.groups)
    total = sum(float(row[0]) for row in latencies) * (1 - 1e-13)
    assert set(solve(options, {"latency_us": total}).bits.values()) == {8}
    with pytest.raises(ConfigError, match="no policy fits"):
        solve(options, {"latency_us": total * (1 - 1e-10)})
    with pytest.raises(ConfigError, match=r"no policy fits latency_us 4\.4: give latency_us 4\.5 "):
        solve(options, {"latency_us": 4.4})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"energy": 3.0}, "no limit on energy: these options have size_bits, bops, latency_us"),
        ({"bops": float("nan")}, "the limit on bops is nan"),
        ({"size_bits": 0.0}, "give a positive number"),
    ],
)
def test_limits_that_are_none(limits, words):
    with pytest.raises(ConfigError, match=words):
        solve(made_up(3, WIDTHS, 0), limits)


def test_without_limits_every_layer_keeps_its_best():
    found = solve(made_up(4, WIDTHS, 0), {})
    assert found == Policy({f"l{i}": 8 for i in range(4)})


def test_groups_that_cannot_be():
    with pytest.raises(ConfigError, match="'l1' is named twice"):
        tied(made_up(3, WIDTHS, 0, ((0, 1), (1, 2))))
    wide, narrow = made_up(2, ((8, 8),), 0), made_up(2, ((4, 8),), 0)
    costs = {name: (wide.costs[name][0], narrow.costs[name][1]) for name in wide.costs}
    apart = Options(wide.layers, (wide.choices[0], narrow.choices[1]), costs, (("l0", "l1"),))
    with pytest.raises(ConfigError, match="layers l0, l1 must share their bits"):
        solve(apart, {})


def test_nothing_is_printed(capfd):
    """HiGHS would: standard output is for answers."""
    for seed in range(12):
        options = made_up(40, WIDTHS, seed)
        solve(options, limits_of(options, [0.67, 0.7, 0.93], {"size_bits", "latency_us"}))
    assert capfd.readouterr().out == ""
