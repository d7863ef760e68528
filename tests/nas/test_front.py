"""The exact front against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError, TableError
from nas.search.front import exact_front, undominated
from nas.space import Architecture, Block, SearchSpace
from nas.table import Entry, Table


def space_of(layers: list[int], bits: tuple[int, ...]) -> SearchSpace:
    blocks = tuple(Block(1, 8, n, n) for n in layers)
    return SearchSpace("tiny", 8, 8, blocks, kernels=(3,), expansions=(3, 6), bits=bits)


def tables_of(space: SearchSpace, quantities: tuple[str, ...], seed: int, levels: int) -> list[Table]:
    rng = np.random.default_rng(seed)
    return [
        Table(
            name,
            "u",
            {s: Entry.exact(float(rng.integers(levels))) for s in space.all_subnets()},
            {"space": space.digest},
        )
        for name in quantities
    ]


def brute_force(space: SearchSpace, tables: list[Table]) -> dict[Architecture, tuple[float, ...]]:
    blocks = [list(space.subnets(i)) for i in range(1, len(space.blocks) + 1)]
    whole = [Architecture(c) for c in itertools.product(*blocks)]
    return {a: tuple(t.total(a) for t in tables) for a in whole}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 2), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 10**6), st.integers(2, 60)
)
def test_the_front_is_brute_forces(layers, objectives, seed, levels):
    space = space_of(layers, (4, 8))
    tables = tables_of(space, ("nsr", "size", "latency")[:objectives], seed, levels)
    costs = brute_force(space, tables)
    points = set(costs.values())
    expected = {p for p in points if not any(q != p and all(x <= y for x, y in zip(q, p, strict=True)) for q in points)}
    front = exact_front(space, tables)
    assert {tuple(row) for row in front.costs.tolist()} == expected
    assert len(front.architectures) == len(expected)
    for architecture, row in zip(front.architectures, front.costs.tolist(), strict=True):
        assert costs[architecture] == tuple(row)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 60))
def test_the_best_under_a_budget_is_brute_forces(seed, budget):
    space = space_of([2, 1], (8,))
    tables = tables_of(space, ("nsr", "latency"), seed, 30)
    fitting = [c[0] for c in brute_force(space, tables).values() if c[1] <= budget]
    front = exact_front(space, tables)
    if fitting:
        best = front.best({"latency": budget})
        assert tables[0].total(best) == min(fitting)
        assert tables[1].total(best) <= budget
    else:
        with pytest.raises(ConfigError, match="the smallest reachable are latency"):
            front.best({"latency": budget})


def test_equal_points_keep_one():
    assert undominated(np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])).tolist() == [2, 0]


def test_a_table_of_another_space_is_refused():
    space, other = space_of([1], (8,)), space_of([2], (8,))
    with pytest.raises(TableError, match="another space"):
        exact_front(space, tables_of(other, ("nsr",), 0, 5))


def test_missing_and_infinite_entries_are_named():
    space = space_of([1], (8,))
    (table,) = tables_of(space, ("nsr",), 0, 5)
    first, *rest = table.entries
    with pytest.raises(TableError, match=f"misses 1 subnets, the first is {first}"):
        exact_front(space, [Table("nsr", "u", {s: table.entries[s] for s in rest}, table.provenance)])
    bad = {**table.entries, first: Entry.exact(float("nan"))}
    with pytest.raises(TableError, match=f"nsr of {first} is nan"):
        exact_front(space, [Table("nsr", "u", bad, table.provenance)])
