"""The exact searches with terms between neighbouring blocks, against brute force."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas.search.candidates
import nas.search.front
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.search.boundary_terms import boundary_terms
from nas.search.brute_force import all_architectures, front_costs, k_best_by_all
from nas.search.candidates import Candidates, candidates
from nas.search.front import exact_front, front
from nas.search.k_best import k_best
from nas.search.prove import prove, random_limits, random_sub_space, same_costs
from nas.search.traversal import traverse
from nas.search.union import CostTables, best_within, k_best_of_schemes, limits_of_schemes, union_front
from nas.space import Architecture, Boundary, Choice, SearchSpace
from nas.table import Table
from tests.nas.search.search_tables import fractional_tables_of, space_of, tables_of, with_interactions

QUANTITIES = ("nsr", "size", "latency")


def made_up(
    layers: list[int], quantities: tuple[int, int], seed: int, levels: int, share: float
) -> tuple[SearchSpace, list[Table]]:
    """Tables, of which one, counted from the end, has interactions at a share of the boundaries."""
    objectives, interacting = quantities
    space, names = space_of(layers, (4, 8)), QUANTITIES[-objectives:]
    tables = tables_of(space, names, seed, levels) if levels else fractional_tables_of(space, names, seed)
    at = len(tables) - 1 - interacting % len(tables)
    tables[at] = with_interactions(space, tables[at], seed, share, levels // 2)
    return space, tables


MADE_UP = st.builds(
    made_up,
    st.lists(st.integers(1, 2), min_size=1, max_size=4).filter(lambda layers: sum(layers) < 6),
    st.tuples(st.integers(1, 3), st.sampled_from([0, 0, 1, 2])),
    st.integers(0, 10**6),
    st.sampled_from([0, 3, 50]),
    st.sampled_from([0.2, 1.0]),
)


@settings(max_examples=80, deadline=None)
@given(MADE_UP, st.sampled_from([1, 7, 1 << 21]))
def test_the_front_is_brute_forces(made, at_once):
    space, tables = made
    of = candidates(space, tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.search.front, "SUMS_AT_ONCE", at_once)
        found = exact_front(space, tables)
    assert np.array_equal(found.costs, front_costs(of))
    assert np.array_equal(found.pruned.totals(found.choices), found.costs)
    totals = [[table.total(a) for table in tables] for a in found.architectures]
    assert np.array_equal(np.array(totals), found.costs)


@settings(max_examples=60, deadline=None)
@given(MADE_UP, st.randoms(use_true_random=False), st.integers(1, 40))
def test_the_k_best_and_the_traversal_are_brute_forces(made, rng, k):
    of = random_sub_space(candidates(*made), rng)
    for limits in random_limits(of, rng):
        found, slow = k_best(of, limits, k), k_best_by_all(of, limits, k)
        assert same_costs(found, slow)
        rows = [[block.index(s) for block, s in zip(of.subnets, r.architecture.subnets, strict=True)] for r in found]
        assert [r.costs for r in found] == [tuple(row) for row in of.totals(np.array(rows)).tolist()]
        for way in (of, of.pruned()):
            traversed = traverse(way, limits)
            assert traversed.complete and traversed.best is not None
            assert traversed.best.costs[0] == slow[0].costs[0]


@settings(max_examples=60, deadline=None)
@given(MADE_UP, st.randoms(use_true_random=False))
def test_the_least_is_brute_forces(made, rng):
    of = random_sub_space(candidates(*made), rng)
    _, costs = all_architectures(of)
    assert of.least() == pytest.approx(costs.min(axis=0), abs=1e-12)
    for name, least in zip(of.objectives, costs.min(axis=0).tolist(), strict=True):
        assert k_best(of, {name: least}, 1)
        with pytest.raises(ConfigError, match="no architecture fits"):
            k_best(of, {name: least - 1e-9}, 1)


@settings(max_examples=40, deadline=None)
@given(MADE_UP, MADE_UP, st.randoms(use_true_random=False))
def test_schemes_and_budgets_see_the_terms(one, other, rng):
    """The union of two schemes of one space, each searched exactly: against the sums of all architectures."""
    space, tables = one
    names = [table.quantity for table in tables]
    if names[0] != "nsr":
        tables = [replace(tables[0], quantity="nsr"), *tables[1:]]
        names = [table.quantity for table in tables]
    terms = other[1][-1].interactions
    known = {b: e for b, e in terms.items() if b.block < len(space.blocks)}
    second = [*tables[:-1], replace(tables[-1], interactions=known)]
    schemes = [CostTables(name, {t.quantity: t for t in own}) for name, own in (("a", tables), ("b", second))]
    of = [scheme.candidates(space, names) for scheme in schemes]
    fronts = [front(each) for each in of]
    everything = np.concatenate([all_architectures(each)[1] for each in of])
    points = {point.costs for point in union_front(schemes, fronts)}
    dominated = lambda p: any((q <= p).all() and (q < p).any() for q in everything)  # noqa: E731
    assert points == {tuple(p) for p in everything.tolist() if not dominated(np.array(p))}
    budgets = {n: float(v) for n, v in zip(names, rng.choice(everything.tolist()), strict=True) if n != "nsr"}
    tables_of_best, best, _ = best_within(space, schemes, budgets)
    fits = everything[(everything <= of[0].limit_vector(budgets)).all(axis=1)]
    assert tables_of_best.total("nsr", best) == fits[:, 0].min()
    ranked = k_best_of_schemes(schemes, of, limits_of_schemes(schemes, fronts, budgets), 3)
    assert [p.costs[0] for p in ranked] == np.sort(fits[:, 0])[: len(ranked)].tolist()


def test_without_interactions_nothing_changes():
    space = space_of([2, 2, 1], (4, 8))
    tables = fractional_tables_of(space, QUANTITIES, 3)
    of = candidates(space, tables)
    assert of.boundaries == () and boundary_terms(of.subnets, tables) == ()
    none = replace(tables[-1], interactions={Boundary(1, Choice(3, 3), Choice(3, 6)): Estimate.exact(0.0)})
    again = front(candidates(space, [*tables[:-1], none]))
    assert np.array_equal(again.costs, front(of).costs) and again.architectures == front(of).architectures


def test_choices_whose_terms_are_equal_are_one_class():
    space = SearchSpace("s", 8, 8, space_of([1, 2, 1], (8,)).blocks, kernels=(3, 5), expansions=(3, 6))
    table = tables_of(space, ["latency"], 0, 50)[0]
    wide = [c for c in space.choices if c.expansion == 6]
    terms = {Boundary(2, Choice(3, 3), first): Estimate.exact(7.0) for first in wide}
    of = candidates(space, [replace(table, interactions=terms)])
    assert [at.terms.shape[:2] for at in of.boundaries] == [(1, 1), (2, 2)]
    assert of.boundaries[1].terms.max() == 7.0


def test_a_term_that_is_no_number_is_refused():
    space = space_of([1, 1], (8,))
    table = tables_of(space, ["latency"], 0, 5)[0]
    terms = {Boundary(1, Choice(3, 3), Choice(3, 6)): Estimate.exact(float("nan"))}
    with pytest.raises(TableError, match="b1 and b2 is not finite"):
        candidates(space, [replace(table, interactions=terms)])


def test_the_proof_sees_the_terms(monkeypatch):
    space, tables = made_up([2, 2, 2], (3, 0), 5, 0, 1.0)
    of = candidates(space, tables)
    assert prove(of, front(of), random.Random(0)).holds
    without = Candidates(of.objectives, of.subnets, of.costs)
    assert not prove(of, front(without), random.Random(0)).holds


def test_pruning_across_classes_leaves_room_for_the_terms():
    """A subnet that is behind by less than its neighbours may win back stays."""
    space = space_of([1, 1], (8,))
    first, second = list(space.subnets(1)), list(space.subnets(2))
    entries = {first[0]: 10.0, first[1]: 12.0, second[0]: 1.0, second[1]: 1.0}
    terms = {Boundary.between(first[0], second[0]): 3.0, Boundary.between(first[0], second[1]): 3.0}
    table = Table(
        "latency",
        "u",
        {s: Estimate.exact(value) for s, value in entries.items()},
        {"space": space.digest},
        {b: Estimate.exact(value) for b, value in terms.items()},
    )
    assert exact_front(space, [table]).architectures[0].subnets[0] == first[1]
    assert exact_front(space, [table]).costs.tolist() == [[13.0]]


def test_a_boundary_reads_as_it_is_written():
    boundary = Boundary(2, Choice(7, 3), Choice(5, 6))
    assert str(boundary) == "b2_k7e3|b3_k5e6" and Boundary.parse(str(boundary)) == boundary
    architecture = Architecture.parse("b1_k3e6-k5e3_w8+b2_k7e3_w8")
    assert str(Boundary.between(*architecture.subnets)) == "b1_k5e3|b2_k7e3"
    for wrong in ("b1_k3e6|b3_k5e3", "b1_k3e6", "b1_k3|b2_k3e3", "b0_k3e3|b1_k3e3", "b1_k03e6|b2_k3e3"):
        with pytest.raises(ConfigError, match="is no boundary of two blocks"):
            Boundary.parse(wrong)
