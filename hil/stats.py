"""Summaries of latency samples that assume no distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hil.errors import Incomparable, UsageError

SHORT_US = 100.0


@dataclass(frozen=True)
class LatencySummary:
    """All in microseconds.

    Attributes:
        mad_us: median absolute deviation from the median, not scaled.
        ci95_us: interval of the median from order statistics; with fewer than 6 samples no such interval
            reaches 95 %, and it is the whole range.
        n: number of samples.
    """

    median_us: float
    p90_us: float
    p95_us: float
    mad_us: float
    ci95_us: tuple[float, float]
    n: int


def milliseconds(us: float) -> str:
    """With a digit more than 0.1 %: 12.346 for 12 345.6 us, 0.01123 for 11.23 us."""
    return f"{us / 1000:.3f}" if us >= SHORT_US else f"{us / 1000:.5f}"


def summarize(latencies_us: Sequence[float]) -> LatencySummary:
    """Raises Incomparable when there is no sample."""
    if not len(latencies_us):
        raise Incomparable("no latency samples to summarize: measure the model first")
    ordered = np.sort(np.asarray(latencies_us, dtype=np.float64))  # (n,)
    median, p90, p95 = (float(value) for value in np.percentile(ordered, [50, 90, 95]))
    low, high = _median_ranks(len(ordered))
    return LatencySummary(
        median_us=median,
        p90_us=p90,
        p95_us=p95,
        mad_us=float(np.median(np.abs(ordered - median))),
        ci95_us=(float(ordered[low]), float(ordered[high])),
        n=len(ordered),
    )


def _median_ranks(n: int, level: float = 0.95) -> tuple[int, int]:
    """Zero-based ranks (l, n-1-l) whose order statistics enclose the median with at least `level`.

    The number of samples below the median is Binomial(n, 1/2): David and Nagaraja, Order Statistics, 7.1.
    """
    tail, low = 0.0, 0
    for rank in range(n // 2):
        # in logarithms: a binomial coefficient of thousands does not fit a float
        log_term = math.lgamma(n + 1) - math.lgamma(rank + 1) - math.lgamma(n - rank + 1) - n * math.log(2)
        tail += math.exp(log_term)
        if 2 * tail > 1 - level:
            break
        low = rank
    return low, n - 1 - low


def bootstrap_ci(
    statistic: Callable[[npt.NDArray[np.intp]], float],
    n: int,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic`, which gets indices (n,) drawn from 0..n-1 with
    replacement. Resamples where it is not finite (a constant resample has no rank correlation) are left out.

    Raises UsageError when n or resamples is under 1, or level is not within (0, 1).
    """
    if n < 1 or resamples < 1 or not 0 < level < 1:
        raise UsageError(f"bootstrap of n={n}, resamples={resamples}, level={level}: give at least one of each")
    rng: Any = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, n, size=n)) for _ in range(resamples)], dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
