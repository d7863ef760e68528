"""Rank agreement and the table's correction, on latencies whose truth is known."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.latency.agreement import Sample, agreement, tau_b
from deploy.latency.feedback import correct
from hil.errors import CheckFailed
from nas.space import Block, SearchSpace
from nas.table import Entry, Table

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


def test_feedback_finds_the_slopes():
    table, samples = world((0.7, 1.3, 1.0), 200.0, 1.0)
    corrected, c = correct(table, samples)
    assert c.applied
    assert c.slopes == pytest.approx((0.7, 1.3, 1.0), abs=0.02)
    assert c.constant_us == pytest.approx(200, abs=20)
    assert c.error_held_out < 1 < c.error_before
    assert c.tau_b_held_out > c.tau_b_before
    subnet = next(SPACE.subnets(1))
    assert corrected[subnet] == pytest.approx(table[subnet] * c.slopes[0])
    assert corrected.entries[subnet].source == "corrected"


def test_feedback_that_does_not_help_is_not_applied():
    table, samples = world((1, 1, 1), 300.0, 120.0, models=12)
    corrected, c = correct(table, samples)
    if not c.applied:
        assert dict(corrected.entries) == dict(table.entries)
        assert c.slopes == (1, 1, 1)
    assert c.error_held_out <= c.error_before or not c.applied


def test_too_few_models_are_refused():
    _, samples = world((1, 1, 1), 0.0, 1.0)
    with pytest.raises(CheckFailed, match="2 models is undefined"):
        agreement(samples[:2])
