"""Several quantization schemes in one search against every architecture of every scheme."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.search.brute_force import all_architectures, undominated_by_pairs
from nas.search.front import front
from nas.search.union import CostTables, best_within, k_best_of_schemes, limits_of_schemes, union_front
from tests.nas.search_tables import fractional_tables_of, space_of, tables_of

QUANTITIES = ("nsr", "size", "latency")
SPACE = space_of([1, 2], (4, 8))


def schemes_of(seed: int, levels: int, count: int) -> list[CostTables]:
    """Each with its own tables and costs outside the blocks; few levels make ties, none make fractions."""
    made = []
    for i in range(count):
        own = seed * 10 + i
        tables = tables_of(SPACE, QUANTITIES, own, levels) if levels else fractional_tables_of(SPACE, QUANTITIES, own)
        outside = {"size": float(seed % 3), "latency": float((seed + i) % 5)}
        made.append(CostTables(f"scheme{i}", dict(zip(QUANTITIES, tables, strict=True)), outside))
    return made


def every_point(schemes: list[CostTables]) -> list[tuple[tuple[float, ...], str]]:
    """The slow way: the full costs of every architecture of every scheme."""
    found = []
    for scheme in schemes:
        _, costs = all_architectures(scheme.candidates(SPACE, QUANTITIES))
        rows = [
            tuple(scheme.full(q, value) for q, value in zip(QUANTITIES, row, strict=True)) for row in costs.tolist()
        ]
        found += [(row, scheme.name) for row in rows]
    return found


SCHEMES = st.builds(schemes_of, st.integers(0, 10**6), st.sampled_from([0, 3, 30]), st.integers(1, 3))


@settings(max_examples=25, deadline=None)
@given(SCHEMES, st.data())
def test_the_union_is_that_of_all_architectures(schemes, data):
    points = every_point(schemes)
    fronts = [front(scheme.candidates(SPACE, QUANTITIES)) for scheme in schemes]
    costs = [row for row, _ in points]
    expected = {costs[i] for i in undominated_by_pairs(np.array(costs))}
    found = union_front(schemes, fronts)
    assert {point.costs for point in found} == expected
    for point in found:
        scheme = next(scheme for scheme in schemes if scheme.name == point.scheme)
        assert point.costs == tuple(scheme.total(q, point.architecture) for q in QUANTITIES)

    latency = data.draw(st.sampled_from(sorted(row[2] for row in costs)))
    budgets = {"latency": latency + 1e-9}  # the rest is taken off the budget, and may round
    fitting = sorted((row, name) for row, name in points if row[2] <= latency)
    scheme, best, _ = best_within(SPACE, schemes, budgets)
    assert scheme.total("nsr", best) == fitting[0][0][0] and scheme.total("latency", best) <= latency
    limits = limits_of_schemes(schemes, fronts, budgets)
    of = [scheme.candidates(SPACE, QUANTITIES) for scheme in schemes]
    assert [p.costs for p in k_best_of_schemes(schemes, of, limits, 7)] == [row for row, _ in fitting[:7]]


def test_of_equal_models_the_first_schemes_is_taken():
    (scheme,) = schemes_of(1, 3, 1)
    twin = CostTables("twin", scheme.tables, scheme.outside)
    fronts = [front(scheme.candidates(SPACE, QUANTITIES))] * 2
    assert {point.scheme for point in union_front([scheme, twin], fronts)} == {"scheme0"}
    assert best_within(SPACE, [scheme, twin], {"size": 100.0})[0] is scheme


def test_a_scheme_in_which_nothing_fits_is_left_out_and_none_is_an_error():
    near, far = schemes_of(4, 30, 2)
    far = CostTables("far", far.tables, {"latency": 1e6})
    assert best_within(SPACE, [far, near], {"latency": 1e3})[0] is near
    with pytest.raises(ConfigError, match=r"'x': no scheme has a model: far: a latency of .* give more; scheme0: "):
        best_within(SPACE, [far, near], {"latency": 0.5}, "budget 'x': ")
    with pytest.raises(ConfigError, match=r"^budget 'x': a latency of"):
        best_within(SPACE, [far], {"latency": 0.5}, "budget 'x': ")
