"""The frontier near the program's solution, greedy descent and the selection, compared with every policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas.lcpaq.refine
from nas.errors import ConfigError
from nas.lcpaq.policy import Layer, Options, Policy
from nas.lcpaq.program import solve, totals
from nas.lcpaq.refine import best, frontier, greedy, proposals, refine
from nas.search.brute_force import undominated_by_pairs
from tests.nas.lcpaq.lcpaq_options import every_policy, fits, made_up

WIDTHS = ((8, 8), (6, 8), (4, 8))
TIES = st.sampled_from([(), ((0, 2),), ((0, 1, 3), (2, 4))])


def limits_of(options: Options, **shares: float) -> dict[str, float]:
    return {n: share * sum(float(row.max()) for row in options.costs[n]) for n, share in shares.items()}


@settings(max_examples=40, deadline=None)
@given(TIES, st.floats(0.55, 1.1), st.floats(0.5, 1.1), st.floats(1, 3), st.integers(0, 10**6))
def test_the_frontier_is_brute_forces(ties, size, bops, factor, seed):
    options = made_up(6, WIDTHS, seed, ties)
    limits = limits_of(options, size_bits=size, bops=bops)
    every = [tuple(c.values()) for c in every_policy(options) if fits(c, limits)]
    if not every:
        return
    least = min(costs[0] for costs in every)
    near = np.array([costs for costs in every if costs[0] <= factor * least])
    expected = near[undominated_by_pairs(near)]
    found = frontier(options, limits, factor)
    assert found.factor == pytest.approx(factor)
    assert found.costs == pytest.approx(expected[np.lexsort(expected.T[::-1])], rel=1e-9)
    for policy, costs in zip(found.best(len(found)), found.costs, strict=True):
        assert tuple(totals(options, policy).values()) == pytest.approx(tuple(costs))
        assert all(len({policy.choice(name) for name in group}) == 1 for group in options.groups)


def test_the_frontier_begins_with_the_programs_solution():
    """Of forty layers, where brute force would compare 1e19 policies."""
    for seed in range(3):
        options = made_up(40, WIDTHS, seed, ((1, 4, 7), (20, 30)))
        limits = limits_of(options, size_bits=0.67, bops=0.75)
        found = frontier(options, limits, 1.05)
        answer = totals(options, solve(options, limits))
        assert found.costs[0, 0] == pytest.approx(answer["perturbation"], rel=1e-9)
        assert len(found) > 100
        assert all(fits(totals(options, policy), limits) for policy in found.best(50))


@pytest.mark.parametrize("seed", range(6))
def test_a_frontier_of_too_many_is_narrowed(monkeypatch, seed):
    """What remains is complete: the frontier of that smaller factor."""
    options = made_up(12, WIDTHS, seed)
    limits = limits_of(options, size_bits=0.7, bops=0.8)
    monkeypatch.setattr(nas.lcpaq.refine, "MOST_ROWS", 20)
    narrow = frontier(options, limits, 2.0)
    monkeypatch.undo()
    assert 1 <= narrow.factor < 2
    assert len(narrow) > 0
    assert np.array_equal(narrow.costs, frontier(options, limits, narrow.factor).costs)


def test_a_limit_missed_by_a_hair_is_missed():
    options = made_up(6, WIDTHS, 4)
    at = frontier(options, limits_of(options, size_bits=0.7), 2.0).costs
    size = at[0, 1]
    assert frontier(options, {"size_bits": size}, 2.0).costs[0, 1] == size
    assert (frontier(options, {"size_bits": size * (1 - 1e-10)}, 2.0).costs[:, 1] < size).all()


def test_greedy_narrows_what_costs_least_a_saved_bit():
    """Halving the large layer costs 10 for 4 000 bits, the small one 1 for 400: the same, so the first; then 8 - 2."""
    layers = tuple(Layer(name, "conv", weights, 0, 1) for name, weights in (("large", 1000), ("small", 100)))
    choices = ((4, 8), (6, 8), (8, 8))
    sizes = tuple(np.array([4.0, 6.0, 8.0]) * layer.weights for layer in layers)
    perturbation = (np.array([20.0, 8.0, 0.0]), np.array([2.0, 0.5, 0.0]))
    options = Options(layers, (choices, choices), {"perturbation": perturbation, "size_bits": sizes})
    # a saved bit costs 8/2000 and 20/4000 of the large layer, 0.5/200 and 2/400 of the small one
    assert greedy(options, {"size_bits": 8799}) == Policy({"large": 8, "small": 6})
    # then 8/2000 of the large layer against 1.5/200
    assert greedy(options, {"size_bits": 8599}) == Policy({"large": 6, "small": 6})
    # then 12/2000 against 1.5/200
    assert greedy(options, {"size_bits": 6599}) == Policy({"large": 4, "small": 6})
    assert greedy(options, {"size_bits": 8800}) == Policy({"large": 8, "small": 8})
    with pytest.raises(ConfigError, match="greedy descent ends above the limit on size_bits"):
        greedy(options, {"size_bits": 4399})


@settings(max_examples=30, deadline=None)
@given(TIES, st.floats(0.6, 1), st.floats(0.5, 1), st.integers(0, 10**6))
def test_greedy_keeps_limits_and_ties_and_is_never_better(ties, size, bops, seed):
    options = made_up(12, WIDTHS, seed, ties)
    limits = limits_of(options, size_bits=size, bops=bops)
    try:
        found = greedy(options, limits)
    except ConfigError:
        with pytest.raises(ConfigError, match="no policy fits"):  # here every narrowing saves both
            solve(options, limits)
        return
    assert fits(totals(options, found), limits)
    assert all(len({found.choice(name) for name in group}) == 1 for group in options.groups)
    least = totals(options, solve(options, limits))["perturbation"]
    assert totals(options, found)["perturbation"] >= least * (1 - 1e-9)


def test_the_best_score_is_kept():
    """A score that ignores the perturbation, and one that is always equal: then the least perturbation decides."""
    options = made_up(8, WIDTHS, 2)
    limits = limits_of(options, size_bits=0.7)
    proposed = proposals(options, limits, k=30, factor=2.0)
    assert proposed[0] == ("program", solve(options, limits))
    assert len({str(policy) for _, policy in proposed}) == len(proposed) > 5
    seen = list(refine(options, limits, lambda policy: -totals(options, policy)["size_bits"], k=30, factor=2.0))
    assert [(s.origin, s.policy) for s in seen] == proposed
    assert [(s.done, s.total) for s in seen] == [(i + 1, len(seen)) for i in range(len(seen))]
    assert all(fits(s.costs, limits) for s in seen)
    smallest = min(s.costs["size_bits"] for s in seen)
    assert best(seen).costs["size_bits"] == smallest < seen[0].costs["size_bits"]
    alike = list(refine(options, limits, lambda policy: 0.5, k=30, factor=2.0))
    assert best(reversed(alike)).origin == "program"


def test_near_copies_are_passed_over():
    options = made_up(8, WIDTHS, 2)
    found = frontier(options, limits_of(options, size_bits=0.7), 2.0)
    every, apart = found.best(len(found)), found.best(6, apart=3)
    assert apart[0] == every[0]
    for i, policy in enumerate(apart):
        assert all(sum(policy.bits[n] != other.bits[n] for n in policy.bits) >= 3 for other in apart[:i])
    left_out = every[: every.index(apart[-1])]
    assert len(left_out) > len(apart)


def test_what_cannot_be_refined():
    options = made_up(4, WIDTHS, 0)
    limits = limits_of(options, size_bits=0.7)
    with pytest.raises(ConfigError, match="scores nan"):
        list(refine(options, limits, lambda policy: float("nan")))
    with pytest.raises(ConfigError, match="no policy fits"):
        list(refine(options, {"size_bits": 1.0}, lambda policy: 0.0))
    with pytest.raises(ConfigError, match="at least 1 of each"):
        proposals(options, limits, k=0)
    with pytest.raises(ConfigError, match="at least 1 of each"):
        proposals(options, limits, factor=0.9)
