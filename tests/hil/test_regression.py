from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import Incomparable, UsageError
from hil.regression import compare, draws

RESAMPLES = 40


def rounds_of(seed: int, *, slower: float = 1.0, drift: float = 0.0, rounds: int = 10, drift_seed: int = 0):
    """Runs of 1000 us with 1 % of noise, each round longer by its own share up to `drift`."""
    moment = 1 + drift * np.random.default_rng(drift_seed).random((rounds, 1))
    noise = 1 + 0.01 * np.random.default_rng(seed).random((rounds, 20))
    return (1000 * slower * moment * noise).astype(int).tolist()


def interval_by_loops(base, head, interleaved: bool) -> tuple[float, float]:
    """The slow obvious way: one resample after the other, lists and sorting only."""
    rng = np.random.default_rng(0)
    base_rounds, base_runs = draws((len(base), len(base[0])), rng, RESAMPLES)
    head_rounds, head_runs = draws((len(head), len(head[0])), rng, RESAMPLES)
    ratios = []
    for resample in range(RESAMPLES):
        picked_base, picked_head = [], []
        for r in range(len(base)):
            runs = base[base_rounds[resample, r]]
            picked_base.append(sorted(runs[i] for i in base_runs[resample, r])[len(runs) // 10])
        for r in range(len(head)):
            runs = head[base_rounds[resample, r] if interleaved else head_rounds[resample, r]]
            picked_head.append(sorted(runs[i] for i in head_runs[resample, r])[len(runs) // 10])
        if interleaved:
            ratios.append(statistics.median(h / b for h, b in zip(picked_head, picked_base, strict=True)))
        else:
            ratios.append(statistics.median(picked_head) / statistics.median(picked_base))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


sides = st.tuples(st.integers(4, 7), st.integers(1, 23), st.integers(1, 23)).flatmap(
    lambda n: st.tuples(
        *(
            st.lists(st.lists(st.integers(1, 10**6), min_size=runs, max_size=runs), min_size=n[0], max_size=n[0])
            for runs in n[1:]
        )
    )
)


@settings(max_examples=40, deadline=None)
@given(sides, st.booleans())
def test_the_interval_is_that_of_the_slow_way(pair, interleaved):
    base, head = pair
    fast = compare(base, head, 0.05, interleaved=interleaved, resamples=RESAMPLES)
    assert fast.ci95 == interval_by_loops(base, head, interleaved)


def test_the_same_is_not_slower_and_5_percent_is():
    base = rounds_of(1)
    same, slower = (compare(base, rounds_of(2, slower=s), 0.02, interleaved=True) for s in (1.0, 1.05))
    assert not same.slower and same.ratio == pytest.approx(1.0, abs=0.003)
    assert slower.slower and slower.ratio == pytest.approx(1.05, abs=0.003) and slower.p_value < 1e-6
    assert not compare(base, rounds_of(2, slower=1.05), 0.06, interleaved=True).slower
    assert not compare(rounds_of(2, slower=1.05), base, 0.02, interleaved=True).slower
    assert (
        slower.decided and same.decided and not compare(base, rounds_of(2, slower=1.05), 0.05, interleaved=True).decided
    )


def test_what_rounds_share_cancels_only_where_they_were_interleaved():
    base, head = rounds_of(1, drift=0.5), rounds_of(2, slower=1.05, drift=0.5)
    assert compare(base, head, 0.02, interleaved=True).slower
    apart = compare(base, head, 0.02, interleaved=False)
    assert not apart.slower and apart.ci95[0] < 0.9 and apart.ci95[1] > 1.1


def test_a_neighbour_in_some_runs_and_some_rounds_is_no_regression():
    base, head = rounds_of(1), np.array(rounds_of(2))
    head[:, ::2] *= 3  # half of the runs of every round
    head[:2] *= 5  # and two rounds as a whole
    assert not compare(base, head.tolist(), 0.02, interleaved=True).slower


def test_drift_between_rounds_raises_no_alarm_where_runs_alone_would():
    """Measured apart, with a drift of 10 %: resampling single runs is sure of differences that are the moments'."""
    alarms = alone = 0
    for i in range(100):
        base, head = (rounds_of(1000 + 2 * i + k, drift=0.1, drift_seed=5000 + 2 * i + k) for k in (0, 1))
        alarms += compare(base, head, 0.001, interleaved=False).slower
        rng = np.random.default_rng(i)
        b, h = (np.median(rng.choice(np.ravel(side), (400, 200)), axis=1) for side in (base, head))
        alone += np.quantile(h / b, 0.025) > 1.001
    assert alarms <= 5 and alone >= 20  # one-sided, 2.5 % nominally


@pytest.mark.parametrize(
    ("base", "head", "error"),
    [
        ([[1]] * 3, [[1]] * 4, Incomparable),
        ([[1]] * 4, [[1]] * 5, Incomparable),
        ([[1]] * 4, [[1], [1], [1], [1, 2]], Incomparable),
        ([[]] * 4, [[1]] * 4, Incomparable),
        ([], [[1]] * 4, Incomparable),
    ],
)
def test_too_little_or_uneven_samples(base, head, error):
    with pytest.raises(error, match="rounds"):
        compare(base, head, 0.05, interleaved=True)


@pytest.mark.parametrize("threshold", [0.0, -0.1, float("nan")])
def test_a_threshold_is_above_0(threshold):
    with pytest.raises(UsageError, match="threshold"):
        compare([[1]] * 4, [[1]] * 4, threshold, interleaved=True)


def test_one_percent_of_eleven_microseconds_is_one_percent():
    """In whole microseconds it would be nothing, or 9 %."""
    base = [[us * 11 / 1000 for us in runs] for runs in rounds_of(1)]
    head = [[us * 11.11 / 1000 for us in runs] for runs in rounds_of(2)]
    found = compare(base, head, 0.02, interleaved=True)
    assert found.ratio == pytest.approx(1.01, abs=0.003) and not found.slower
    assert compare(base, head, 0.005, interleaved=True).slower


def test_runs_too_short_for_the_clock_count_one_nanosecond():
    assert compare([[0, 0]] * 4, [[0, 0]] * 4, 0.05, interleaved=True).ratio == 1.0
