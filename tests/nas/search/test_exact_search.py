"""The k best, DNA's traversal and the proof against brute force."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas.search.prove
from nas.errors import ConfigError
from nas.search.brute_force import all_architectures, k_best_by_all
from nas.search.budgets import Amount, limits_within, shown
from nas.search.candidates import Candidates, candidates
from nas.search.front import front
from nas.search.k_best import k_best
from nas.search.prove import prove, random_limits, random_sub_space, same_costs
from nas.search.traversal import traverse
from tests.nas.search.search_tables import fractional_tables_of, space_of, tables_of

QUANTITIES = ("nsr", "size", "latency")


def made_up(layers: list[int], objectives: int, seed: int, levels: int) -> Candidates:
    """Whole numbers, or where there are no levels fractions."""
    space, names = space_of(layers, (4, 8)), QUANTITIES[:objectives]
    tables = tables_of(space, names, seed, levels) if levels else fractional_tables_of(space, names, seed)
    return candidates(space, tables)


CANDIDATES = st.builds(
    made_up,
    st.lists(st.integers(1, 2), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(0, 10**6),
    st.sampled_from([0, 3, 50]),
)


@settings(max_examples=60, deadline=None)
@given(CANDIDATES, st.randoms(use_true_random=False), st.integers(1, 40))
def test_the_k_best_are_brute_forces(of, rng, k):
    for limits in random_limits(of, rng):
        found = k_best(of, limits, k)
        assert same_costs(found, k_best_by_all(of, limits, k))
        rows = [[block.index(s) for block, s in zip(of.subnets, r.architecture.subnets, strict=True)] for r in found]
        assert [r.costs for r in found] == [tuple(row) for row in of.totals(np.array(rows)).tolist()]
        assert found == k_best(of, limits, k)


def test_the_k_best_of_few_are_all_of_them():
    of = made_up([1, 2, 1], 3, 0, 3)
    assert of.count == 128
    assert len({r.architecture for r in k_best(of, {}, 200)}) == of.count


@settings(max_examples=60, deadline=None)
@given(CANDIDATES, st.randoms(use_true_random=False))
def test_the_traversal_ends_at_the_best(of, rng):
    """Also after each block was pruned to its Pareto front, as in QA-BWNAS, and with fewer visits."""
    for limits in random_limits(of, rng):
        least = k_best_by_all(of, limits, 1)[0].costs[0]
        full, pruned = traverse(of, limits), traverse(of.pruned(), limits)
        assert full.complete and pruned.complete
        assert full.best is not None and pruned.best is not None
        assert full.best.costs[0] == pruned.best.costs[0] == least
        assert all(c <= limits.get(n, c) for n, c in zip(of.objectives, full.best.costs, strict=True))
        assert pruned.visits <= full.visits


def test_the_traversal_visits_as_published():
    """Losses ascend; under 5 the first subnet is cut at once (5 + 1 > 5), and each last loop ends where one fits."""
    space = space_of([1, 1], (4, 8))
    blocks = [list(space.subnets(1))[:3], list(space.subnets(2))[:2]]
    costs = (np.array([[1.0, 5.0], [2.0, 2.0], [3.0, 1.0]]), np.array([[1.0, 4.0], [2.0, 1.0]]))
    of = Candidates(("nsr", "size"), tuple(map(tuple, blocks)), costs)
    for size, visits, best in (
        (6.0, 3 + 2 + 2, (3.0, 6.0)),
        (5.0, 1 + 3 + 2, (4.0, 3.0)),
        (9.0, 2 + 2 + 2, (2.0, 9.0)),
    ):
        found = traverse(of, {"size": size})
        assert found.best is not None
        assert (found.visits, found.best.costs) == (visits, best)


def test_the_traversal_reports_that_it_was_ended():
    of = made_up([2, 2, 2], 2, 0, 0)
    ended = traverse(of, {"size": float(of.least()[1]) * 1.2}, most_visits=10)
    assert (ended.visits, ended.complete) == (10, False)
    assert traverse(of, {"size": -1.0}).best is None


@settings(max_examples=60, deadline=None)
@given(CANDIDATES, st.randoms(use_true_random=False))
def test_nothing_fits_below_the_smallest(of, rng):
    name = rng.choice(of.objectives)
    least = float(of.least()[of.objectives.index(name)])
    _, costs = all_architectures(of)
    assert costs[:, of.objectives.index(name)].min() == least
    assert k_best(of, {name: least}, 1)
    with pytest.raises(ConfigError, match=f"no architecture fits {name} .*; the smallest reachable are {name}"):
        k_best(of, {name: least - 1e-9}, 1)


def test_limits_that_exclude_each_other_are_refused():
    of = made_up([2, 2, 2], 3, 1, 0)
    limits = {"size": float(of.least()[1]), "latency": float(of.least()[2])}
    with pytest.raises(ConfigError, match=r"no architecture fits size .*, latency .*\(each separately\)"):
        k_best(of, limits, 2)
    with pytest.raises(ConfigError, match=r"budget 'x': no model fits a size of .* and a latency of .* together"):
        limits_within(front(of), limits, {}, "budget 'x': ")
    with pytest.raises(ConfigError, match="the 0 best: ask for at least one"):
        k_best(of, {}, 0)


def test_a_budget_of_full_networks_counts_what_lies_outside_the_blocks():
    found = front(made_up([1, 1], 2, 1, 50))
    least = found.costs[:, 1].min()
    assert limits_within(found, {"size": least + 800}, {"size": 800.0}) == {"size": least}
    with pytest.raises(ConfigError, match=f"a size of .* is below the smallest model's {shown('size', least + 800)}"):
        limits_within(found, {"size": least + 799}, {"size": 800.0})


@pytest.mark.parametrize(
    "text, quantity, value, share",
    [
        ("250kB", "size", 2e6, False),
        ("1.5 MB", "size", 12e6, False),
        ("1e6bits", "size", 1e6, False),
        ("75%", "size", 0.75, True),
        ("3.5ms", "latency", 3500.0, False),
        ("120%", "latency", 1.2, True),
    ],
)
def test_amounts_are_read(text, quantity, value, share):
    assert Amount.parse(text, quantity) == Amount(quantity, value, share)


@pytest.mark.parametrize("text", ["", "12", "-3kB", "0kB", "nan%", "inf%", "kB", "3ms", "3 kB!", "1e999kB", "1_0kB"])
def test_invalid_amounts_are_refused(text):
    with pytest.raises(ConfigError, match="give a positive number with a unit"):
        Amount.parse(text, "size")


def test_tables_without_a_run_have_no_teacher():
    assert Amount.parse("75%", "size").of_teacher(1000.0) == 750.0
    with pytest.raises(ConfigError, match="tables without a run have no teacher"):
        Amount.parse("75%", "size").of_teacher(None)


def test_a_proof_holds_and_notices_a_wrong_search(monkeypatch):
    of = made_up([2, 2, 2], 3, 5, 0)
    proof = prove(of, front(of), random.Random(0))
    assert proof.holds and proof.sub_spaces == 20 and proof.architectures > 100 and proof.queries == 60

    def forgetful(sub, limits, k):
        return k_best(sub, limits, k + 1)[1:] or k_best(sub, limits, k)

    monkeypatch.setattr(nas.search.prove, "k_best", forgetful)
    assert "best of sub-space" in (prove(of, front(of), random.Random(0)).difference or "")
    monkeypatch.undo()
    lacking = front(random_sub_space(of, random.Random(1), 8))
    assert "is ahead of the front" in (prove(of, lacking, random.Random(0)).difference or "")
