from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import Incomparable, UsageError
from hil.stats import bootstrap_ci, summarize


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_a_summary_is_ordered_and_within_the_samples(samples: list[int]) -> None:
    summary = summarize(samples)
    low, high = summary.ci95_us
    assert min(samples) <= low <= summary.median_us <= high <= max(samples)
    assert summary.median_us <= summary.p90_us <= summary.p95_us <= max(samples)
    assert summary.n == len(samples)


def test_known_values() -> None:
    summary = summarize(range(1, 101))
    assert (summary.median_us, summary.mad_us, summary.ci95_us) == (
        50.5,
        25.0,
        (40.0, 61.0),
    )  # tabulated ranks
    assert summarize([1, 2, 3, 4, 5, 6]).ci95_us == (1.0, 6.0)
    assert summarize([7]).ci95_us == (7.0, 7.0)
    assert summarize(range(20_001)).median_us == 10_000
    with pytest.raises(Incomparable):
        summarize([])


def test_the_interval_of_the_median_covers_it() -> None:
    rng = np.random.default_rng(0)
    samples = rng.lognormal(mean=5, sigma=1, size=(1000, 30)) * 1000
    truth = math.exp(5) * 1000
    covered = [low <= truth <= high for low, high in (summarize(row.astype(int)).ci95_us for row in samples)]
    assert 0.94 <= np.mean(covered) <= 0.985


def test_bootstrap_is_seeded_and_covers() -> None:
    values = np.random.default_rng(1).normal(10, 2, size=200)
    interval = bootstrap_ci(lambda index: float(values[index].mean()), 200, seed=3)
    assert interval == bootstrap_ci(lambda index: float(values[index].mean()), 200, seed=3)
    assert interval[0] < values.mean() < interval[1]
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * 2 / math.sqrt(200), rel=0.2)
    assert all(math.isnan(bound) for bound in bootstrap_ci(lambda index: math.nan, 5, seed=0))
    with pytest.raises(UsageError):
        bootstrap_ci(lambda index: 0.0, 0, seed=0)
