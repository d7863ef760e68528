"""Is one model slower than another? From samples in rounds; nothing here touches a board.

Runs within a round share heat, clock and neighbours, which change from round to round, so rounds are
resampled, and runs only within them (a hierarchical bootstrap: Davison and Hinkley, Bootstrap Methods, 3.8).
A disturbance only makes a run longer, so a round's level is the lowest tenth of its runs, not their median:
with neighbours on two of two cores the median's intervals were more than twice as wide. A model whose slow runs alone
become slower is therefore not noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hil.errors import Incomparable, UsageError

Rounds: TypeAlias = Sequence[Sequence[float]]
"""A model's runs, microseconds, round by round; as many in each."""

Samples: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]

FEWEST_ROUNDS = 4  # fewer do not show how rounds differ
RESAMPLES = 1000
QUANTILES = (0.025, 0.975)  # of a 95 % interval
SIGNIFICANT = 0.01
SHORTEST_US = 0.001


@dataclass(frozen=True)
class Comparison:
    """Head against base.

    Attributes:
        base_us: the median over rounds of base's levels, microseconds.
        head_us: the median over rounds of head's levels, microseconds.
        ratio: head over base: interleaved, the median of the rounds' ratios; else the ratio of the medians.
        ci95: the ratio's 95 % interval.
        p_value: Mann-Whitney, one-sided: head's runs are not longer than base's. Runs within a round are alike,
            which it does not know, so it is a second guard beside the interval and never decides alone.
        threshold: the share by which head may be slower.
        rounds: number of head's rounds.
    """

    base_us: float
    head_us: float
    ratio: float
    ci95: tuple[float, float]
    p_value: float
    threshold: float
    rounds: int

    @property
    def decided(self) -> bool:
        """The interval lies on one side of the threshold; if not, more rounds may decide."""
        return not self.ci95[0] <= 1 + self.threshold < self.ci95[1]

    @property
    def slower(self) -> bool:
        """Slower by more than the threshold, whatever the ratio within its interval."""
        return self.ci95[0] > 1 + self.threshold and self.p_value < SIGNIFICANT

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ci95": list(self.ci95), "slower": self.slower}


def compare(
    base: Rounds, head: Rounds, threshold: float, *, interleaved: bool, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """`interleaved`: round i of both was measured at the same time, so what they share cancels in their ratio.

    Raises Incomparable for fewer than `FEWEST_ROUNDS` rounds or, interleaved, for unequal numbers of them, and
    UsageError for a threshold that is not above 0.
    """
    if not threshold > 0:
        raise UsageError(f"threshold {threshold:g}: give a share above 0, for example 0.05")
    ratio, ci95 = latency_ratio(base, head, interleaved=interleaved, seed=seed, resamples=resamples)
    b, h = _samples(base), _samples(head)  # (rounds, runs)
    return Comparison(
        base_us=float(np.median(levels(b))),
        head_us=float(np.median(levels(h))),
        ratio=ratio,
        ci95=ci95,
        p_value=_mann_whitney(b, h, interleaved),
        threshold=threshold,
        rounds=len(h),
    )


def latency_ratio(
    base: Rounds, head: Rounds, *, interleaved: bool, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, tuple[float, float]]:
    """Head over base and its 95 % interval, as in `Comparison`; raises Incomparable as `compare` does."""
    b, h = _samples(base), _samples(head)  # (rounds, runs)
    if interleaved and len(b) != len(h):
        raise Incomparable(f"{len(b)} rounds of base against {len(h)} of head: interleaved ones come in pairs")
    ratios = _resampled(b, h, interleaved, np.random.default_rng(seed), resamples)  # (resamples,)
    low, high = np.quantile(ratios, QUANTILES)
    return float(_ratio(levels(b), levels(h), interleaved)), (float(low), float(high))


def levels(samples: Samples) -> Samples:
    """The first decile of the runs along the last axis: an order statistic, so it is one of them."""
    return np.sort(samples, axis=-1)[..., samples.shape[-1] // 10]


def draws(shape: tuple[int, ...], rng: np.random.Generator, resamples: int) -> tuple[Indices, Indices]:
    """For samples of that shape, (rounds, runs): which rounds, (resamples, rounds), and which runs in each of them."""
    return rng.integers(0, shape[0], (resamples, shape[0])), rng.integers(0, shape[1], (resamples, *shape))


def _resampled(
    base: Samples, head: Samples, interleaved: bool, rng: np.random.Generator, resamples: int
) -> npt.NDArray[np.float64]:
    base_rounds, base_runs = draws(base.shape, rng, resamples)
    head_rounds, head_runs = draws(head.shape, rng, resamples)
    if interleaved:
        head_rounds = base_rounds
    return _ratio(
        levels(base[base_rounds[..., None], base_runs]), levels(head[head_rounds[..., None], head_runs]), interleaved
    )


def _ratio(base_us: Samples, head_us: Samples, interleaved: bool) -> npt.NDArray[np.float64]:
    """Of levels, (..., rounds), along the last axis."""
    if interleaved:
        return np.asarray(np.median(head_us / base_us, axis=-1))
    return np.asarray(np.median(head_us, axis=-1) / np.median(base_us, axis=-1))


def _mann_whitney(base: Samples, head: Samples, interleaved: bool) -> float:
    from scipy.stats import mannwhitneyu

    b, h = base, head
    if interleaved:  # without what both of a round share
        shared = np.median(np.concatenate([b, h], axis=1), axis=1, keepdims=True)
        b, h = b / shared, h / shared
    return float(mannwhitneyu(h.ravel(), b.ravel(), alternative="greater").pvalue)


def _samples(rounds: Rounds) -> Samples:
    runs = {len(latencies_us) for latencies_us in rounds}
    if len(rounds) < FEWEST_ROUNDS or len(runs) != 1 or 0 in runs:
        raise Incomparable(
            f"{len(rounds)} rounds of {', '.join(map(str, sorted(runs)))} runs: "
            f"measure {FEWEST_ROUNDS} rounds or more, of equally many runs each"
        )
    return np.maximum(np.asarray(rounds, dtype=np.float64), SHORTEST_US)  # a coarse clock may read 0
