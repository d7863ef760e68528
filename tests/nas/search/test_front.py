"""The exact Pareto front and the best under budgets against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nas.search.front
import nas.search.pareto
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.search.brute_force import front_costs, undominated_by_pairs
from nas.search.candidates import candidates, within_count
from nas.search.front import exact_front, front
from nas.search.pareto import lexical_order, undominated
from nas.space import Architecture, SearchSpace
from nas.table import Table
from tests.nas.search.search_tables import space_of, tables_of

QUANTITIES = ("nsr", "size", "latency", "energy")


def brute_force(space: SearchSpace, tables: list[Table]) -> dict[Architecture, tuple[float, ...]]:
    blocks = [list(space.subnets(i)) for i in range(1, len(space.blocks) + 1)]
    every = [Architecture(c) for c in itertools.product(*blocks)]
    return {a: tuple(t.total(a) for t in tables) for a in every}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 2), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 10**6), st.integers(2, 60)
)
def test_the_front_is_brute_forces(layers, objectives, seed, levels):
    space = space_of(layers, (4, 8))
    tables = tables_of(space, QUANTITIES[:objectives], seed, levels)
    costs = brute_force(space, tables)
    points = set(costs.values())
    expected = {p for p in points if not any(q != p and all(x <= y for x, y in zip(q, p, strict=True)) for q in points)}
    found = exact_front(space, tables)
    assert {tuple(row) for row in found.costs.tolist()} == expected
    assert len(found) == len(found.architectures) == len(expected)
    for architecture, row in zip(found.architectures, found.costs.tolist(), strict=True):
        assert costs[architecture] == tuple(row)
    assert np.array_equal(front_costs(candidates(space, tables)), found.costs)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4), st.integers(1, 400), st.integers(0, 10**6), st.integers(1, 1000), st.booleans())
def test_the_undominated_are_those_of_comparing_all_pairs(objectives, rows, seed, levels, whole_numbers):
    """With the grid and with divide and conquer down to few rows, so that every part of the fast path is passed."""
    rng = np.random.default_rng(seed)
    costs = rng.integers(levels, size=(rows, objectives)).astype(float)
    if not whole_numbers:
        costs += rng.normal(size=costs.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.search.pareto, "GRID_FROM", 2)
        patch.setattr(nas.search.pareto, "ALL_PAIRS", 4)
        found = undominated(costs)
    slow = undominated_by_pairs(costs)
    assert np.array_equal(np.unique(costs[slow], axis=0), costs[found])
    first = {tuple(row): i for i, row in reversed(list(enumerate(costs.tolist())))}
    assert found.tolist() == [first[tuple(row)] for row in costs[found].tolist()]


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.sampled_from([-1.0, 0.0, 2.5])))
def test_the_lexical_order_is_numpys(costs):
    assert lexical_order(costs).tolist() == np.lexsort(costs.T[::-1]).tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 200))
def test_a_merge_in_parts_is_that_at_once(seed, at_once):
    of = candidates(space := space_of([2, 2, 1], (4, 8)), tables_of(space, QUANTITIES[:3], seed, 40))
    at_one_time = front(of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.search.front, "SUMS_AT_ONCE", at_once)
        parts = front(of)
    assert np.array_equal(at_one_time.costs, parts.costs) and at_one_time.architectures == parts.architectures


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 60))
def test_the_best_under_a_budget_is_brute_forces(seed, budget):
    space = space_of([2, 1], (8,))
    tables = tables_of(space, ("nsr", "latency"), seed, 30)
    fitting = [c[0] for c in brute_force(space, tables).values() if c[1] <= budget]
    found = exact_front(space, tables)
    if fitting:
        best = found.best({"latency": budget})
        assert tables[0].total(best) == min(fitting)
        assert tables[1].total(best) <= budget
    else:
        with pytest.raises(ConfigError, match="the smallest reachable are latency"):
            found.best({"latency": budget})


def test_equal_points_keep_one():
    assert undominated(np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])).tolist() == [2, 0]


def test_the_order_of_tables_and_entries_does_not_matter():
    space = space_of([2, 1], (4, 8))
    tables = tables_of(space, QUANTITIES[:3], 1, 9)
    turned = [Table(t.quantity, t.unit, dict(reversed(t.entries.items())), t.provenance) for t in tables]
    assert exact_front(space, tables).architectures == exact_front(space, turned).architectures


def test_what_is_not_allowed_is_in_no_architecture():
    space = space_of([2, 1], (4, 8))
    tables = tables_of(space, ("nsr", "latency"), 3, 50)
    (left,) = tables_of(space, ("cpu_operators",), 4, 2)
    found = exact_front(space, tables, within_count(0, left))
    costs = brute_force(space, tables)
    clean = {a: c for a, c in costs.items() if all(left[s] == 0 for s in a.subnets)}
    assert 0 < len(clean) < len(costs)
    assert all(a in clean for a in found.architectures)
    assert min(c[0] for c in clean.values()) == found.costs[0, 0]


def test_a_block_without_allowed_subnets_is_named():
    space = space_of([2, 1], (8,))
    with pytest.raises(ConfigError, match="block 2: none of its 2 subnets is allowed"):
        exact_front(space, tables_of(space, ("nsr",), 0, 5), lambda subnet: subnet.block == 1)


def test_limits_that_mean_nothing_are_refused():
    space = space_of([1], (8,))
    found = exact_front(space, tables_of(space, ("nsr", "size"), 0, 5))
    with pytest.raises(ConfigError, match="no limit on latency: the search is over nsr, size"):
        found.best({"latency": 3.0})
    with pytest.raises(ConfigError, match="not nan"):
        found.best({"size": float("nan")})


def test_objectives_are_given_once():
    space = space_of([1], (8,))
    tables = tables_of(space, ("nsr", "nsr"), 0, 5)
    with pytest.raises(ConfigError, match="search over nsr, nsr: give each objective once"):
        exact_front(space, tables)
    with pytest.raises(ConfigError, match="search over nothing"):
        exact_front(space, [])


def test_a_table_of_another_space_is_refused():
    space, other = space_of([1], (8,)), space_of([2], (8,))
    with pytest.raises(TableError, match="another space"):
        exact_front(space, tables_of(other, ("nsr",), 0, 5))


def test_tables_of_two_checkpoints_are_refused():
    space = space_of([1], (8,))
    nsr, latency = (
        Table(t.quantity, t.unit, t.entries, {**t.provenance, "checkpoint": made})
        for t, made in zip(tables_of(space, ("nsr", "latency"), 0, 5), ("aaa", "bbb"), strict=True)
    )
    with pytest.raises(TableError, match=r"nsr table and the latency table are of different checkpoints \(aaa and bbb"):
        exact_front(space, [nsr, latency])


def test_missing_and_infinite_entries_are_named():
    space = space_of([1], (8,))
    (table,) = tables_of(space, ("nsr",), 0, 5)
    first, *rest = table.entries
    with pytest.raises(TableError, match=f"misses 1 subnets, the first is {first}"):
        exact_front(space, [Table("nsr", "u", {s: table.entries[s] for s in rest}, table.provenance)])
    for value in ("nan", "inf"):
        bad = {**table.entries, first: Estimate.exact(float(value))}
        with pytest.raises(TableError, match=f"nsr of {first} is {value}"):
            exact_front(space, [Table("nsr", "u", bad, table.provenance)])
