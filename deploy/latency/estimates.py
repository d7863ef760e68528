"""Latency estimates: from a measurement's samples, as sums with independent errors, and their standard errors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hil.stats import LatencySummary
from nas.estimate import Estimate

Z95 = 1.959964  # standard errors to either end of a 95 % interval
CLOCK_US = 0.5  # half of the clock's microsecond: no measured time has a smaller standard error


def of_summary(summary: LatencySummary) -> Estimate:
    """The median of measured samples with its interval, microseconds."""
    return Estimate(summary.median_us, None, *summary.ci95_us, summary.n, "measured")


def half_width(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def standard_error(estimate: Estimate) -> float:
    """As it is known, or from the 95 % interval."""
    if estimate.std_error is not None:
        return estimate.std_error
    return (estimate.high - estimate.low) / (2 * Z95)


def moved(estimate: Estimate, value: float) -> Estimate:
    """Another value with the same error: both limits of the interval keep their distance from it."""
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    return replace(estimate, value=value, low=value - below, high=value + above)


def widened(entry: Estimate, value: float, error: float) -> Estimate:
    """The entry corrected to another value, by an effect whose standard error is independent of the entry's."""
    below, above = (float(np.hypot(half, Z95 * error)) for half in (entry.value - entry.low, entry.high - entry.value))
    std_error = None if entry.std_error is None else float(np.hypot(entry.std_error, error))
    return Estimate(value, std_error, max(value - below, 0.0), value + above, entry.n, "corrected")


def weighted_sum(*terms: tuple[float, Estimate]) -> Estimate:
    """The sum of weight * estimate over `terms`; errors are independent, so half-widths add as their squares do."""
    value = sum(weight * term.value for weight, term in terms)
    half = math.sqrt(sum((weight * half_width(term)) ** 2 for weight, term in terms))
    return Estimate(value, None, value - half, value + half, min(term.n for _, term in terms), "measured")
