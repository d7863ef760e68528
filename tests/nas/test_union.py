"""Several sides in one search against every architecture of every side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.search.brute_force import all_architectures, undominated_by_pairs
from nas.search.front import front
from nas.search.union import Side, best_within, k_best_of_sides, limits_of_sides, union_front
from tests.nas.search_tables import fractional_tables_of, space_of, tables_of

QUANTITIES = ("nsr", "size", "latency")
SPACE = space_of([1, 2], (4, 8))


def sides_of(seed: int, levels: int, count: int) -> list[Side]:
    """Each with tables and a rest of its own; few levels make ties, none make fractions."""
    made = []
    for i in range(count):
        own = seed * 10 + i
        tables = tables_of(SPACE, QUANTITIES, own, levels) if levels else fractional_tables_of(SPACE, QUANTITIES, own)
        around = {"size": float(seed % 3), "latency": float((seed + i) % 5)}
        made.append(Side(f"side{i}", dict(zip(QUANTITIES, tables, strict=True)), around))
    return made


def every_point(sides: list[Side]) -> list[tuple[tuple[float, ...], str]]:
    """The slow way: the whole costs of every architecture of every side."""
    found = []
    for side in sides:
        _, costs = all_architectures(side.candidates(SPACE, QUANTITIES))
        rows = [tuple(side.whole(q, value) for q, value in zip(QUANTITIES, row, strict=True)) for row in costs.tolist()]
        found += [(row, side.name) for row in rows]
    return found


SIDES = st.builds(sides_of, st.integers(0, 10**6), st.sampled_from([0, 3, 30]), st.integers(1, 3))


@settings(max_examples=25, deadline=None)
@given(SIDES, st.data())
def test_the_union_is_that_of_all_architectures(sides, data):
    points = every_point(sides)
    fronts = [front(side.candidates(SPACE, QUANTITIES)) for side in sides]
    costs = [row for row, _ in points]
    expected = {costs[i] for i in undominated_by_pairs(np.array(costs))}
    found = union_front(sides, fronts)
    assert {point.costs for point in found} == expected
    for point in found:
        side = next(side for side in sides if side.name == point.side)
        assert point.costs == tuple(side.total(q, point.architecture) for q in QUANTITIES)

    latency = data.draw(st.sampled_from(sorted(row[2] for row in costs)))
    budgets = {"latency": latency + 1e-9}  # the rest is taken off the budget, and may round
    fitting = sorted((row, name) for row, name in points if row[2] <= latency)
    side, best, _ = best_within(SPACE, sides, budgets)
    assert side.total("nsr", best) == fitting[0][0][0] and side.total("latency", best) <= latency
    limits = limits_of_sides(sides, fronts, budgets)
    of = [side.candidates(SPACE, QUANTITIES) for side in sides]
    assert [p.costs for p in k_best_of_sides(sides, of, limits, 7)] == [row for row, _ in fitting[:7]]


def test_of_equal_models_the_first_sides_is_taken():
    (side,) = sides_of(1, 3, 1)
    twin = Side("twin", side.tables, side.around)
    fronts = [front(side.candidates(SPACE, QUANTITIES))] * 2
    assert {point.side for point in union_front([side, twin], fronts)} == {"side0"}
    assert best_within(SPACE, [side, twin], {"size": 100.0})[0] is side


def test_a_side_in_which_nothing_fits_is_left_out_and_none_is_an_error():
    near, far = sides_of(4, 30, 2)
    far = Side("far", far.tables, {"latency": 1e6})
    assert best_within(SPACE, [far, near], {"latency": 1e3})[0] is near
    with pytest.raises(ConfigError, match=r"'x': no scheme has a model: far: a latency of .* give more; side0: "):
        best_within(SPACE, [far, near], {"latency": 0.5}, "budget 'x': ")
    with pytest.raises(ConfigError, match=r"^budget 'x': a latency of"):
        best_within(SPACE, [far], {"latency": 0.5}, "budget 'x': ")
