"""Does the sum of block latencies rank whole models as the board does? Every statistic of that question.

Source: QA-BWNAS reports Kendall's tau-b of 0.96809 on the i.MX8M Plus; here it is measured for every table, on every
board, over whole models that the table never saw.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.run.records import Compared, ComparedModel, Offender, RankStatistics, Regret, Regrets
from hil.errors import CheckFailed, ModelError
from hil.measurement import Measurement
from hil.stats import bootstrap_ci
from nas.space import Architecture, SearchSpace
from nas.table import Table

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

FEWEST = 3  # models that a rank correlation needs
CANDIDATES = 20  # drawn for each model that is taken
OFFENDERS = 5
BUDGET_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Sample:
    """One whole model: the table's sum and the board's median, both in microseconds."""

    architecture: Architecture
    additive_us: float
    measured_us: float
    halves_us: tuple[float, float]  # medians of two disjoint halves of the samples: the noise


def tau_b(a: Vector, b: Vector) -> float:
    """Kendall's tau-b; `CheckFailed` where it is undefined (all equal)."""
    from scipy.stats import kendalltau

    undefined = f"rank agreement of {len(a)} models is undefined"
    if len(a) < FEWEST:
        raise CheckFailed(f"{undefined}: at least {FEWEST} are needed; measure more (`hilnas agree --models N`)")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise CheckFailed(f"{undefined}: all latencies are equal; measure models that differ, or with more runs")
    return float(kendalltau(a, b, variant="b").statistic)


def _resampled(a: Vector, b: Vector) -> Callable[[Index], float]:
    from scipy.stats import kendalltau

    # asymptotic: of a p-value that nobody reads, the cheap one
    return lambda index: float(kendalltau(a[index], b[index], variant="b", method="asymptotic").statistic)


def top_recall(predicted: Vector, measured: Vector, k: int) -> float:
    """Share of the k fastest measured among the k fastest predicted; of equals the first counts as faster."""
    fastest = [set(np.argsort(latencies, kind="stable")[:k].tolist()) for latencies in (predicted, measured)]
    return len(fastest[0] & fastest[1]) / k


def agreement(samples: Sequence[Sample], seed: int = 0, top: int = 10) -> RankStatistics:
    """Agreement of additive and measured latency; intervals by bootstrap over models.

    `additive_us` may be any prediction made without the model itself. Raises `CheckFailed` where ranks are undefined.
    """
    from scipy.stats import spearmanr

    additive, measured = (np.array([getattr(s, name) for s in samples]) for name in ("additive_us", "measured_us"))
    halves = np.array([s.halves_us for s in samples])
    tau = tau_b(additive, measured)
    offset = float(np.median(measured - additive))
    k = min(top, len(samples) // 2)
    return RankStatistics(
        tau,
        bootstrap_ci(_resampled(additive, measured), len(samples), seed=seed),
        len(samples),
        float(spearmanr(additive, measured).statistic),
        tau_b(halves[:, 0], halves[:, 1]),
        offset,
        float(100 * np.mean(np.abs(additive + offset - measured) / measured)),
        k,
        top_recall(additive, measured, k),
        bootstrap_ci(lambda i: top_recall(additive[i], measured[i], k), len(samples), seed=seed),
    )


def regrets(samples: Sequence[Sample], spent: Sequence[float]) -> tuple[Regret, ...]:
    """The pick under each of five budgets: quantiles of `spent`, what each sample costs besides latency (NSR, size).

    Of the samples within a budget the one with the least additive latency is picked.
    """
    found = []
    for quantile in BUDGET_QUANTILES:
        limit = float(np.quantile(spent, quantile))
        within = [s for s, cost in zip(samples, spent, strict=True) if cost <= limit]
        picked = min(within, key=lambda s: s.additive_us)
        least = min(s.measured_us for s in within)
        percent = 100 * (picked.measured_us / least - 1)
        found.append(Regret(quantile, limit, len(within), str(picked.architecture), picked.measured_us, least, percent))
    return tuple(found)


def regrets_of_table(samples: Sequence[Sample], table: Table) -> Regrets:
    """The regret under five budgets of a table's quantity (NSR, size), each and the worst, in percent."""
    found = regrets(samples, [table.total(s.architecture) for s in samples])
    return Regrets(table.quantity, found, max(regret.percent for regret in found))


def offenders(samples: Sequence[Sample], offset_us: float) -> list[Offender]:
    """The models that the table tells worst, worst first."""
    found = []
    for s in samples:
        predicted = s.additive_us + offset_us
        residual = 100 * (s.measured_us - predicted) / s.measured_us
        found.append(Offender(str(s.architecture), predicted, s.measured_us, residual))
    return sorted(found, key=lambda o: -abs(o.residual_percent))[:OFFENDERS]


def comparison(samples: Sequence[Sample], cost: Table, seed: int, top: int) -> Compared:
    """All of it: statistics, regret under budgets of `cost` (NSR, size), worst offenders, the samples."""
    found = agreement(samples, seed, top)
    compared = tuple(
        ComparedModel(str(s.architecture), s.additive_us, s.additive_us + found.offset_us, s.measured_us, s.halves_us)
        for s in samples
    )
    return Compared(found, regrets_of_table(samples, cost), tuple(offenders(samples, found.offset_us)), compared)


def stratified(space: SearchSpace, table: Table, models: int, rng: random.Random) -> list[Architecture]:
    """Distinct architectures over the whole range of additive latency: one from each quantile bin of many candidates.

    In random order, so that the first few spread as well; the same for the same table and state of `rng`; fewer than
    `models` if the space has no more.
    """
    drawn: dict[Architecture, None] = {}
    for _ in range(5 * CANDIDATES * models):
        drawn[space.sample(rng)] = None
        if len(drawn) == CANDIDATES * models:
            break
    ordered = sorted(drawn, key=lambda a: (table.total(a), str(a)))
    bins = np.array_split(np.arange(len(ordered)), min(models, len(ordered)))
    taken = [ordered[rng.choice(members.tolist())] for members in bins]
    rng.shuffle(taken)
    return taken


def failures(measurements: Sequence[Measurement]) -> dict[str, str]:
    """Why models have no latency: the first failure's reason, by the model's name."""
    reasons: dict[str, str] = {}
    for m in measurements:
        if m.failure is not None:
            reasons.setdefault(m.model, m.failure.reason)
    return reasons


def check_enough(models: int, failed: Mapping[str, str]) -> None:
    """`ModelError` if of so many sampled models fewer than half, or fewer than 3, are left without the failed ones."""
    left, needed = models - len(failed), max(FEWEST, (models + 1) // 2)
    if left < needed:
        name, reason = next(iter(failed.items()), ("none", "too few were sampled"))
        raise ModelError(
            f"agree: {len(failed)} of {models} sampled models failed on the board, {left} are left, {needed} needed; "
            f"the first is {name}: {reason}; mend that (`hilnas quarantine list`), or sample more with --models"
        )
