"""A space's numbers against listing it, and what pruning leaves against comparing all pairs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.search.brute_force import all_architectures, front_costs, undominated_by_pairs
from nas.search.candidates import candidates
from nas.search.reduction import counted, pruning
from nas.space import Block, SearchSpace
from tests.nas.search.search_tables import fractional_tables_of, space_of

some_layers = st.lists(st.integers(1, 3), min_size=1, max_size=3)


def test_table1_is_the_papers(repository):
    counts = counted(replace(SearchSpace.load(repository / "nas/spaces/table1.toml"), bits=(4, 6, 8)))
    assert counts.of_blocks == (216, 216, 1296, 1296, 216, 6)
    assert (counts.subnets, counts.subnets_with_bits) == (3246, 9738)
    assert (counts.architectures, counts.architectures_with_bits) == (6**18, 6**18 * 3**6)
    assert f"{counts.architectures:.1e} {counts.architectures_with_bits:.1e}" == "1.0e+14 7.4e+16"
    assert counts.reductions[2] == 6**4 / 6**18
    assert counts.reduction == pytest.approx(3.2e-11, rel=0.01)
    assert counts.reduction_with_bits == pytest.approx(9738 / 7.4037e16, rel=1e-3)


@settings(max_examples=20)
@given(some_layers, st.sampled_from([(8,), (4, 8)]))
def test_the_numbers_are_those_of_a_list(layers, bits):
    space = space_of(layers, bits)
    counts = counted(space)
    assert counts.of_blocks == tuple(len(list(space.subnets(i, 8))) for i in range(1, len(layers) + 1))
    assert counts.subnets_with_bits == space.count() == len(list(space.all_subnets()))
    of = candidates(space, fractional_tables_of(space, ["nsr"], 0))
    assert counts.architectures_with_bits == of.count == len(all_architectures(of)[0])
    assert counts.reduction == pytest.approx(math.fsum(counts.reductions))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 2), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 99))
def test_what_pruning_leaves_is_undominated(layers, objectives, seed):
    of = candidates(space_of(layers, (4, 8)), fractional_tables_of(space_of(layers, (4, 8)), "abc"[:objectives], seed))
    found = pruning(of)
    assert found.objectives == of.objectives
    assert found.before == tuple(len(costs) for costs in of.costs)
    assert found.after == tuple(len(undominated_by_pairs(costs)) for costs in of.costs)
    assert found.architectures == of.pruned().count
    assert found.front == len(front_costs(of))


def test_a_space_beyond_floats_is_refused():
    with pytest.raises(ConfigError, match="space 'huge': 400 layers of 6 choices are over 1e300 architectures; give"):
        counted(SearchSpace("huge", 8, 8, (Block(1, 8, 400, 1),)))
    assert counted(SearchSpace("large", 8, 8, (Block(1, 8, 380, 1),))).architectures == 6**380
