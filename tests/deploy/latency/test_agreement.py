"""Rank agreement and what follows from it, on latencies whose truth is known."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deploy.cli.test_results_command import GOOD

from deploy.latency.agreement import (
    BUDGET_QUANTILES,
    Sample,
    agreement,
    check_enough,
    comparison,
    failures,
    offenders,
    regrets,
    regrets_of_table,
    stratified,
    tau_b,
    top_recall,
)
from hil.errors import CheckFailed, ModelError
from hil.measurement import Failure
from nas.space import Block, SearchSpace
from nas.table import Entry, Table, size_table

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 8, 2, 1), Block(1, 8, 2, 1), Block(1, 8, 1, 1)))


def slow_tau_b(a: list[int], b: list[int]) -> float:
    """Straight from the definition: pairs, with ties taken out of each side's denominator."""
    concordant = discordant = ties_a = ties_b = 0
    for i in range(len(a)):
        for j in range(i):
            x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
            concordant += x * y > 0
            discordant += x * y < 0
            ties_a += x == 0 and y != 0
            ties_b += y == 0 and x != 0
    return (concordant - discordant) / np.sqrt((concordant + discordant + ties_a) * (concordant + discordant + ties_b))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=20))
def test_tau_b_is_the_definitions(pairs):
    a, b = (list(side) for side in zip(*pairs, strict=True))
    if len(set(a)) == 1 or len(set(b)) == 1:
        with pytest.raises(CheckFailed, match="undefined"):
            tau_b(np.array(a, float), np.array(b, float))
    else:
        assert tau_b(np.array(a, float), np.array(b, float)) == pytest.approx(slow_tau_b(a, b))


def world(slopes: tuple[float, ...], constant: float, noise: float, models: int = 40) -> tuple[Table, list[Sample]]:
    """A latency table, and whole models that cost slope x entry a block, a constant and noise."""
    rng = np.random.default_rng(7)
    entries = {s: Entry(float(rng.uniform(100, 1000)), 0.0, 0.0, 40, "isolated") for s in SPACE.all_subnets()}
    table = Table("latency", "us", entries, {"space": SPACE.digest})
    samples = []
    drawn = random.Random(3)
    for _ in range(models):
        a = SPACE.sample(drawn)
        true = constant + sum(slope * table[s] for slope, s in zip(slopes, a.subnets, strict=True))
        halves = tuple(true + rng.normal(0, noise + 1e-9) for _ in range(2))
        samples.append(Sample(a, table.total(a), float(np.mean(halves)), halves))
    return table, samples


def test_a_true_table_agrees_fully():
    _, samples = world((1, 1, 1), 500.0, 0.0)
    found = agreement(samples)
    assert found.tau_b == pytest.approx(1.0)
    assert found.ci95 == pytest.approx((1.0, 1.0))
    assert found.offset_us == pytest.approx(500.0)
    assert found.n_models == 40


def test_noise_lowers_tau_and_its_ceiling():
    _, samples = world((1, 1, 1), 0.0, 150.0)
    found = agreement(samples)
    assert found.ci95[0] < found.tau_b < found.ci95[1] < 1
    assert found.ceiling_tau_b < 0.95


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=20), st.integers(1, 20))
def test_top_recall_is_the_definitions(pairs, k):
    a, b = (list(side) for side in zip(*pairs, strict=True))
    k = min(k, len(a))
    fastest = [sorted(range(len(x)), key=lambda i, x=x: (x[i], i))[:k] for x in (a, b)]
    expected = sum(i in fastest[1] for i in fastest[0]) / k
    assert top_recall(np.array(a, float), np.array(b, float), k) == pytest.approx(expected)


def test_top_k_is_never_all_of_the_models():
    _, samples = world((1, 1, 1), 500.0, 150.0)
    assert agreement(samples).top_k == 10
    few = agreement(samples[:9])
    assert few.top_k == 4 and few.top_recall_ci95[0] <= few.top_recall <= few.top_recall_ci95[1]


def test_the_error_is_after_the_constant():
    _, samples = world((1, 1, 1), 500.0, 0.0)
    assert agreement(samples).error_percent == pytest.approx(0, abs=1e-6)
    worse = [replace(s, additive_us=s.additive_us + (90 if i == 0 else 0)) for i, s in enumerate(samples)]
    expected = 100 * 90 / samples[0].measured_us / len(samples)
    assert agreement(worse).error_percent == pytest.approx(expected, rel=1e-6)
    first = offenders(worse, 500.0)[0]
    assert (first.subnet, first.measured_us) == (str(samples[0].architecture), samples[0].measured_us)
    assert first.residual_percent == pytest.approx(-100 * 90 / samples[0].measured_us, rel=1e-6)  # predicted too slow


def slow_regret(samples, spent, limit):
    """Every model within the budget, one after the other."""
    picked = least = None
    for s, cost in zip(samples, spent, strict=True):
        if cost > limit:
            continue
        if picked is None or s.additive_us < picked.additive_us:
            picked = s
        if least is None or s.measured_us < least:
            least = s.measured_us
    return 100 * (picked.measured_us - least) / least


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=3, max_size=20))
def test_regret_is_the_definitions(rows):
    _, [sample, *_] = world((1, 1, 1), 0.0, 0.0, models=1)
    samples = [replace(sample, additive_us=float(a), measured_us=float(m)) for a, m, _ in rows]
    spent = [float(cost) for _, _, cost in rows]
    found = regrets(samples, spent)
    assert [r.quantile for r in found] == list(BUDGET_QUANTILES)
    for r in found:
        assert r.percent == pytest.approx(slow_regret(samples, spent, r.limit))
        assert r.models == sum(cost <= r.limit for cost in spent)


def test_a_table_that_misleads_is_regretted_and_a_true_one_is_not():
    table, samples = world((1, 1, 1), 500.0, 0.0)
    true = regrets_of_table(samples, size_table(SPACE))
    assert true.quantity == "size" and true.worst_percent == 0
    backwards = regrets_of_table([replace(s, additive_us=-s.additive_us) for s in samples], size_table(SPACE))
    assert backwards.worst_percent > 20
    assert comparison(samples, table, 0, 10).regret.quantity == "latency"


# Which models are measured


def test_samples_cover_the_range_and_are_the_same_again():
    table, _ = world((1, 1, 1), 0.0, 0.0)
    drawn = stratified(SPACE, table, 30, random.Random("7/agree"))
    assert len(set(drawn)) == 30
    assert drawn == stratified(SPACE, table, 30, random.Random("7/agree"))
    assert drawn != stratified(SPACE, table, 30, random.Random("8/agree"))
    rng = random.Random(0)
    everywhere = np.sort([table.total(SPACE.sample(rng)) for _ in range(4000)])
    strays = []
    for seed in range(5):
        of_seed = [table.total(a) for a in stratified(SPACE, table, 30, random.Random(seed))]
        ranks = np.sort(np.searchsorted(everywhere, of_seed) / len(everywhere))
        strays.append(np.abs(ranks - (np.arange(30) + 0.5) / 30).max())
    assert np.mean(strays) < 0.08, strays  # of random ones: 0.14
    assert np.corrcoef(np.arange(30), [table.total(a) for a in drawn])[0, 1] < 0.5  # the first few spread as well


def test_a_space_with_fewer_models_gives_them_all():
    small = SearchSpace("small", 8, 8, (Block(2, 8, 1, 1),), kernels=(3, 5), expansions=(2,))
    table = size_table(small)
    assert sorted(map(str, stratified(small, table, 9, random.Random(0)))) == ["b1_k3e2_w8", "b1_k5e2_w8"]


# What cannot be said is refused


def test_too_few_models_are_refused():
    _, samples = world((1, 1, 1), 0.0, 1.0)
    with pytest.raises(CheckFailed, match="2 models is undefined"):
        agreement(samples[:2])


@pytest.mark.parametrize("constant", ["additive_us", "measured_us", "halves_us"])
def test_constant_latencies_are_refused(constant):
    _, samples = world((1, 1, 1), 0.0, 1.0)
    value = (5.0, 5.0) if constant == "halves_us" else 5.0
    with pytest.raises(CheckFailed, match="undefined: all latencies are equal"):
        agreement([replace(s, **{constant: value}) for s in samples])


def test_failed_models_are_named_with_their_first_reason():
    bad = replace(GOOD, status="failed", failure=Failure("model", "crashed: signal 11"), latencies_us=())
    again = replace(bad, round=1, failure=Failure("model", "not run again after round 0: crashed: signal 11"))
    rounds = [replace(m, model=name) for m, name in ((GOOD, "a"), (bad, "b"), (again, "b"), (GOOD, "c"))]
    assert failures(rounds) == {"b": "crashed: signal 11"}


@pytest.mark.parametrize("models, failed, enough", [(4, 1, True), (4, 2, False), (9, 4, True), (9, 5, False)])
def test_at_least_half_and_three_must_be_left(models, failed, enough):
    reasons = {f"sample{i:03d}": "hung" for i in range(failed)}
    if enough:
        check_enough(models, reasons)
        return
    with pytest.raises(ModelError, match=f"{failed} of {models} sampled models failed.*sample000: hung"):
        check_enough(models, reasons)
