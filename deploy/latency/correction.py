"""Measurements of full networks correct the latency table, where that helps on networks left out of the fit.

The effects of `deploy.latency.context_model` that a sum over blocks can hold go into the entries. Evaluated only on
networks left out of the fit, its prior standard deviations included (10 folds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from deploy.latency.agreement import MeasuredNetwork, tau_b
from deploy.latency.context_model import FEWEST, BlockLatencies, ContextData, ContextFitter, ContextModel
from deploy.latency.features import ContextFeatures, Vector
from deploy.run.records import Correction, plain
from hil.errors import CheckFailed
from hil.stats import bootstrap_ci
from nas.errors import ConfigError, TableError
from nas.settings import build
from nas.space import SearchSpace
from nas.table import Table

FOLDS = 10
LARGEST = 10  # effects that are recorded
CORRECTION = "correction"
"""Where a corrected table's provenance has its `Correction`."""


def held_out(
    space: SearchSpace, table: Table, networks: Sequence[MeasuredNetwork], more: Sequence[MeasuredNetwork] = ()
) -> Vector:
    """Each of `networks` (n,) predicted by a fit to the other folds and to `more`, which is never evaluated."""
    blocks = BlockLatencies.of(table)
    features = ContextFeatures.of(space, blocks.latency_us)
    fitter = ContextFitter.of(features, blocks)
    data = ContextData.of(blocks, features, [*networks, *more])
    fold = np.arange(len(networks)) % min(FOLDS, len(networks))
    only_fitted = np.arange(len(networks), len(data.sums))
    predicted = np.empty(len(networks))
    for number in range(fold.max() + 1):
        rest = data.some(np.r_[np.flatnonzero(fold != number), only_fitted])
        mean, _ = fitter.solve(rest, fitter.fit_hyperparameters(rest))
        left_out = data.some(np.flatnonzero(fold == number))
        predicted[fold == number] = left_out.sums + mean[0] + left_out.z @ mean[1:]
    return predicted


def by_offset(table: Table, networks: Sequence[MeasuredNetwork], more: Sequence[MeasuredNetwork] = ()) -> Vector:
    """Each of `networks` predicted by the table's sum and the median offset of all the others, (n,)."""
    sums = np.array([table.total(n.architecture) for n in (*networks, *more)])
    gap = np.array([n.measured_us for n in (*networks, *more)]) - sums
    predicted: Vector = np.array([sums[i] + np.median(np.delete(gap, i)) for i in range(len(networks))])
    return predicted


def correct(
    space: SearchSpace, table: Table, networks: Sequence[MeasuredNetwork], more: Sequence[MeasuredNetwork] = ()
) -> tuple[Table, Correction, ContextModel | None]:
    """The corrected table, its record, and the model, which has the block boundaries too; None where it does not help.

    `more`: networks that are fitted to and never evaluated. Raises `CheckFailed` where ranks are undefined, or for
    fewer networks than a fit needs.
    """
    if len(networks) < FEWEST:
        raise CheckFailed(f"{len(networks)} full networks are too few for a correction; measure at least {FEWEST}")
    model = ContextModel.fitted(space, BlockLatencies.of(table), [*networks, *more])
    correction = _evaluated(space, table, networks, more, model)
    corrected = model.corrected(table) if correction.applied else table
    provenance = {**table.provenance, CORRECTION: plain(correction)}
    return replace(corrected, provenance=provenance), correction, model if correction.applied else None


def _evaluated(
    space: SearchSpace,
    table: Table,
    networks: Sequence[MeasuredNetwork],
    more: Sequence[MeasuredNetwork],
    model: ContextModel,
) -> Correction:
    """The correction by `model` against the table with an offset.

    It is applied if its error is lower and its ranks are no worse.
    That is within the noise of so few networks: of 12, one pair that changes places is a loss of 0.03, while on a board
    that became 10 % slower since the table four fifths of the error go (`tests/deploy/latency/test_correction.py`).
    """
    y = np.array([n.measured_us for n in networks])
    before, after = by_offset(table, networks, more), held_out(space, table, networks, more)
    sums = np.array([table.total(n.architecture) for n in networks])
    tau_before, tau_after = tau_b(sums, y), tau_b(after, y)
    errors = mean_error(before, y), mean_error(after, y)
    applied = errors[1] < errors[0] and not ranks_worse(sums, after, y)
    everyone = [*networks, *more]
    gaps = [n.measured_us - table.total(n.architecture) for n in everyone]
    constant = model.constant_us if applied else float(np.median(gaps))
    prior_std = asdict(model.prior_std)
    effects = _largest(model) if applied else {}
    return Correction(constant, len(everyone), tau_before, tau_after, *errors, applied, prior_std, effects)


def ranks_worse(before: Vector, after: Vector, measured: Vector) -> bool:
    """Whether `after` (n,) ranks the measured networks worse than `before`, beyond noise.

    The 95 % interval of the difference of both tau-b, on the same resampled networks, is below 0.
    """
    from scipy.stats import kendalltau

    def gain(i: NDArray[np.intp]) -> float:
        of_after, of_before = (
            kendalltau(predicted[i], measured[i], variant="b", method="asymptotic").statistic
            for predicted in (after, before)
        )
        return float(of_after - of_before)

    _, high = bootstrap_ci(gain, len(measured), seed=0)
    return high < 0


def _largest(model: ContextModel) -> dict[str, float]:
    """The effects of largest size, by name, microseconds."""
    effects = dict(zip(model.features.names, model.effects_us.tolist(), strict=True))
    return {name: effects[name] for name in sorted(effects, key=lambda name: -abs(effects[name]))[:LARGEST]}


def correction_of(table: Table) -> Correction | None:
    """How the table was corrected; None where it never was. Raises `TableError` where that is not readable."""
    if CORRECTION not in table.provenance:
        return None
    try:
        return build(Correction, table.provenance[CORRECTION], CORRECTION)
    except (TypeError, ValueError, ConfigError) as error:
        raise TableError(
            f"how the {table.quantity} table was corrected is not readable ({error}): run `hilnas agree`"
        ) from None


def mean_error(predicted: Vector, measured: Vector) -> float:
    """Mean absolute percentage error."""
    return float(100 * np.mean(np.abs(predicted - measured) / measured))
