"""Does the sum of block latencies rank whole models as the board does? Kendall's tau-b with its interval.

Source: QA-BWNAS reports 0.96809 on the i.MX8M Plus; here it is measured for every table, on every board.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import CheckFailed
from hil.stats import bootstrap_ci
from nas.space import Architecture

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One whole model: the table's sum and the board's median, both in microseconds."""

    architecture: Architecture
    additive_us: float
    measured_us: float
    halves_us: tuple[float, float]  # medians of two disjoint halves of the samples: the noise


@dataclass(frozen=True)
class Agreement:
    """`ceiling_tau_b`: tau between two halves of the same samples; no table can be seen to do better."""

    tau_b: float
    ci95: tuple[float, float]
    n_models: int
    spearman: float
    ceiling_tau_b: float
    offset_us: float

    def record(self) -> dict[str, object]:
        return asdict(self)


def tau_b(a: Vector, b: Vector) -> float:
    """Kendall's tau-b; `CheckFailed` where it is undefined (all equal)."""
    from scipy.stats import kendalltau

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise CheckFailed(f"rank agreement of {len(a)} models is undefined: too few, or all latencies equal")
    return float(kendalltau(a, b, variant="b").statistic)


def _resampled(a: Vector, b: Vector) -> Callable[[NDArray[np.int64]], float]:
    from scipy.stats import kendalltau

    return lambda index: float(np.nan_to_num(kendalltau(a[index], b[index], variant="b").statistic))


def agreement(samples: Sequence[Sample], seed: int = 0) -> Agreement:
    """Rank agreement of additive and measured latency, with a bootstrap interval over models."""
    from scipy.stats import spearmanr

    additive = np.array([s.additive_us for s in samples])
    measured = np.array([s.measured_us for s in samples])
    halves = np.array([s.halves_us for s in samples])
    tau = tau_b(additive, measured)
    low, high = bootstrap_ci(_resampled(additive, measured), len(samples), seed=seed)
    return Agreement(
        tau,
        (low, high),
        len(samples),
        float(spearmanr(additive, measured).statistic),
        tau_b(halves[:, 0], halves[:, 1]),
        float(np.median(measured - additive)),
    )
