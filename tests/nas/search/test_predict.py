"""The accuracy predictor against slow obvious solutions, explicit refits and brute force."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.search.predict import (
    STRENGTHS,
    AccuracyPredictor,
    Design,
    NsrFeatures,
    best_strength,
    fit,
    held_out,
    left_out,
    search,
    second_order,
)
from nas.space import Architecture, Block, SearchSpace
from nas.table import Table

problems = st.tuples(st.integers(5, 14), st.integers(1, 9), st.integers(0, 10**6), st.floats(-1.5, 3))


def problem(n: int, d: int, seed: int) -> tuple[Design, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = np.column_stack([np.ones(n), rng.normal(size=n) + 3])
    return Design(base, rng.normal(size=(n, d)) + 1), rng.normal(size=n) * 5 + 60


def space_of(layers: list[int], bits: tuple[int, ...]) -> SearchSpace:
    blocks = tuple(Block(1, 8, n, n) for n in layers)
    return SearchSpace("tiny", 8, 8, blocks, kernels=(3, 5), expansions=(3,), bits=bits)


def table(space: SearchSpace, quantity: str, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    entries = {s: Estimate.exact(float(rng.integers(1, 1000)) / 64) for s in space.all_subnets()}
    return Table(quantity, "u", entries, {"space": space.digest})


def every(space: SearchSpace) -> list[Architecture]:
    blocks = [list(space.subnets(i)) for i in range(1, len(space.blocks) + 1)]
    return [Architecture(subnets) for subnets in itertools.product(*blocks)]


# Ridge


@settings(max_examples=60, deadline=None)
@given(problems)
def test_ridge_solves_the_normal_equations(drawn):
    n, d, seed, exponent = drawn
    of, y = problem(n, d, seed)
    slopes, weights = fit(of, y, 10**exponent)
    design = np.hstack([of.base, of.terms])
    penalty = np.diag([0.0, 0.0, *[10**exponent] * d])  # the line costs nothing
    slow = np.linalg.solve(design.T @ design + penalty, design.T @ y)
    np.testing.assert_allclose([*slopes, *weights], slow, rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(problems)
def test_leaving_out_in_closed_form_is_refitting(drawn):
    n, d, seed, exponent = drawn
    of, y = problem(n, d, seed)
    refitted = []
    for i in range(n):
        others = np.arange(n) != i
        slopes, weights = fit(of[others], y[others], 10**exponent)
        refitted.append(of.base[i] @ slopes + of.terms[i] @ weights)
    np.testing.assert_allclose(left_out(of, y, 10**exponent), refitted, rtol=1e-6, atol=1e-6)


def test_equal_sums_leave_the_mean_as_the_line():
    of, y = problem(9, 3, 0)
    of = Design(np.ones((9, 2)) * [1, 5], of.terms)
    slopes, weights = fit(of, y, 1e9)
    np.testing.assert_allclose(of.base @ slopes + of.terms @ weights, y.mean())
    np.testing.assert_allclose(left_out(of, y, 1e9), (y.sum() - y) / 8)


def test_a_strong_ridge_is_the_line_over_the_plain_sum():
    of, y = problem(15, 6, 4)
    slope, intercept = np.polyfit(of.base[:, 1], y, 1)
    slopes, weights = fit(of, y, 1e12)
    np.testing.assert_allclose(slopes, [intercept, slope], rtol=1e-6)
    np.testing.assert_allclose(weights, 0, atol=1e-9)


def test_the_strength_is_the_one_with_the_least_error_left_out():
    of, y = problem(20, 6, 1)
    y = y + 4 * of.terms[:, 0]
    errors = {s: np.square(left_out(of, y, s) - y).sum() for s in STRENGTHS}
    assert errors[best_strength(of, y)] == min(errors.values())
    assert 0.01 < best_strength(of, y) < max(STRENGTHS)


def test_what_is_held_out_has_no_say():
    of, y = problem(12, 4, 2)
    before = held_out(of, y)
    for i in range(12):
        changed = y.copy()
        changed[i] += 1000
        assert held_out(of, changed)[i] == before[i]


def test_a_rule_is_found():
    of, _ = problem(40, 5, 3)
    rule = 60 - of.base[:, 1] + 2 * of.terms[:, 0] - 3 * of.terms[:, 1]
    assert np.abs(held_out(of, rule) - rule).max() < 0.05


# Features


def test_second_order_terms_are_all_products():
    z = np.random.default_rng(0).normal(size=(7, 4))
    slow = [[*row, *(row[i] * row[j] for i in range(4) for j in range(i, 4))] for row in z]
    np.testing.assert_array_equal(second_order(z), slow)


@pytest.mark.parametrize("bits", [(8,), (4, 6, 8)])
def test_features_are_standardized_over_each_block(bits):
    space = space_of([1, 2], bits)
    features = NsrFeatures.of(space, table(space, "nsr", 0))
    kinds = ["nsr"] if len(bits) == 1 else ["nsr", "bits"]
    assert features.names == tuple(f"b{b} {kind}" for b in (1, 2) for kind in kinds)
    for block in (1, 2):
        columns = np.array([features.values[s] for s in space.subnets(block)])
        np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(columns.std(axis=0), 1)
    of = features.design(every(space)[:5], 1)
    assert of.terms.shape == (5, len(features.names))
    assert of.base.tolist() == [[1.0, features.nsr.total(a)] for a in every(space)[:5]]


def test_features_tell_the_architecture_from_its_bits():
    space = space_of([1], (4, 8))
    values = {"b1_k3e3_w4": 5.0, "b1_k5e3_w4": 4.0, "b1_k3e3_w8": 2.0, "b1_k5e3_w8": 1.0}
    nsr = Table("nsr", "u", {s: Estimate.exact(values[str(s)]) for s in space.all_subnets()}, {"space": space.digest})
    features = {str(s): v.tolist() for s, v in NsrFeatures.of(space, nsr).values.items()}
    assert features == {
        "b1_k3e3_w4": [1.0, 1.0], "b1_k5e3_w4": [-1.0, 1.0], "b1_k3e3_w8": [1.0, -1.0], "b1_k5e3_w8": [-1.0, -1.0],
    }  # fmt: skip


def test_a_block_without_a_choice_tells_nothing():
    space = SearchSpace("one", 8, 8, (Block(1, 8, 1, 1), Block(1, 8, 1, 1)), kernels=(3,), expansions=(6,))
    features = NsrFeatures.of(space, table(space, "nsr", 0))
    assert [v.tolist() for v in features.values.values()] == [[0.0], [0.0]]


def test_a_table_of_another_space_is_refused():
    space = space_of([1, 2], (8,))
    with pytest.raises(TableError, match="another space"):
        NsrFeatures.of(space, table(space_of([2], (8,)), "nsr", 0))


# Search


def fitted(space: SearchSpace, order: int, seed: int) -> AccuracyPredictor:
    features = NsrFeatures.of(space, table(space, "nsr", seed))
    rng = random.Random(seed)
    models = list(dict.fromkeys(space.sample(rng) for _ in range(24)))
    x = features.design(models, 2).terms
    true = np.random.default_rng(seed).normal(size=x.shape[1])
    return AccuracyPredictor.fitted(features, models, 60 + x @ true, order)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(8,), (4, 8)]), st.floats(0.1, 1.0), st.integers(1, 9))
def test_the_additive_predictor_finds_what_brute_force_finds(seed, bits, share, k):
    space = space_of([1, 2, 1], bits)
    predictor, size = fitted(space, 1, seed), table(space, "size", seed + 1)
    least = sum(min(size[s] for s in space.subnets(b)) for b in (1, 2, 3))
    most = sum(max(size[s] for s in space.subnets(b)) for b in (1, 2, 3))
    limit = least + share * (most - least)
    fitting = [a for a in every(space) if size.total(a) <= limit]
    best = np.sort(predictor.predict(fitting))[::-1][:k]
    found = search(space, (predictor, predictor), [size], {"size": limit}, k)
    np.testing.assert_allclose([value for _, value in found], best, rtol=1e-12)
    assert all(size.total(a) <= limit for a, _ in found)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_additive_predictors_table_holds_its_predictions(seed):
    space = space_of([1, 2, 1], (4, 8))
    predictor = fitted(space, 1, seed)
    loss, models = predictor.table(space), every(space)
    totals = [loss.provenance["intercept"] - loss.total(a) for a in models]
    np.testing.assert_allclose(predictor.predict(models), totals, rtol=1e-12)


def test_the_second_order_ranks_the_neighbourhood_anew():
    space = space_of([1, 2, 1], (4, 8))
    first, second, size = fitted(space, 1, 5), fitted(space, 2, 5), table(space, "size", 6)
    limit = float(np.median([size.total(a) for a in every(space)]))
    fitting = [a for a in every(space) if size.total(a) <= limit]
    found = search(space, (first, second), [size], {"size": limit}, len(fitting))  # the neighbourhood is everything
    assert found[0][1] == max(second.predict(fitting))
    few = search(space, (first, second), [size], {"size": limit}, 10)
    assert {a for a, _ in few} == {a for a, _ in search(space, (first, first), [size], {"size": limit}, 10)}
    assert [v for _, v in few] == sorted((v for _, v in few), reverse=True)


def test_the_second_order_is_no_table():
    space = space_of([1, 2], (8,))
    with pytest.raises(ConfigError, match="only order 1 is additive"):
        fitted(space, 2, 0).table(space)


def test_the_record_names_every_term():
    space = space_of([1, 2], (8,))
    record = fitted(space, 2, 0).record()
    assert set(record["weights"]) == {"b1 nsr", "b2 nsr", "b1 nsr * b1 nsr", "b1 nsr * b2 nsr", "b2 nsr * b2 nsr"}
    sizes = [abs(w) for w in record["weights"].values()]
    assert sizes == sorted(sizes, reverse=True)
