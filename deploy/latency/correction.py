"""Whole-model measurements correct the latency table: a regularized linear model over blocks and where they join.

    measured(a) = constant + sum over blocks of table(block) + z(a) . v + noise,    v ~ N(0, spread of its group)

z (`deploy.latency.features.ContextFeatures`) holds a slope for each block, an effect of each layer's choice, and one of
each pair of choices that meet where two blocks join. Isolated blocks lose fusion and pay the graph's edges; both show
here. The spreads are those that make the measurements likeliest, so what few models cannot tell stays as the table has
it. Judged only on models left out of the fit, spreads included (10-fold).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deploy.latency.agreement import Sample, tau_b
from deploy.latency.features import CONTEXT_GROUPS, ContextFeatures, Matrix, Vector
from deploy.latency.predictor import Z95, BlockModel
from deploy.run.records import Correction
from deploy.run.records.base import plain_fields
from hil.errors import CheckFailed
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Entry, Table

FOLDS = 10
FEWEST = 4  # models, for a fit to each fold's rest
STARTS = np.log([0.05, 0.01, 0.003, 0.005])  # slopes, layers, seams, what is a model's own: shares of latencies
JOINED = np.log([0.05, 0.01, 0.1, 0.005])  # a second start, from where strong seams are found
LEAST_NOISE = 0.001


@dataclass(frozen=True)
class Spreads:
    """Prior standard deviations: of effects, as shares of their blocks' mean latency; `own`: each model's."""

    slopes: float
    layers: float
    seams: float
    own: float

    @classmethod
    def of(cls, logs: Vector) -> Spreads:
        return cls(*np.exp(np.clip(logs, -12.0, 0.0)).tolist())


@dataclass(frozen=True, eq=False)
class Blocks:
    """What is known of blocks: means and variances by subnet, us and us^2."""

    latency_us: Mapping[Subnet, float]
    variance_us2: Mapping[Subnet, float]

    @classmethod
    def of(cls, table: Table) -> Blocks:
        entries = table.entries.items()
        return cls({s: e.value for s, e in entries}, {s: ((e.high - e.low) / (2 * Z95)) ** 2 for s, e in entries})

    @classmethod
    def of_model(cls, model: BlockModel) -> Blocks:
        means, variances = model.mean_us.tolist(), (model.deviation_us**2).tolist()
        return cls(dict(zip(model.cells, means, strict=True)), dict(zip(model.cells, variances, strict=True)))

    def sums(self, architectures: Sequence[Architecture]) -> Vector:
        return np.array([sum(self.latency_us[s] for s in a.subnets) for a in architectures])

    def variances(self, architectures: Sequence[Architecture]) -> Vector:
        return np.array([sum(self.variance_us2[s] for s in a.subnets) for a in architectures])


@dataclass(frozen=True, eq=False)
class _Data:
    """Whole models as numbers: design z (n, features), table's sums, measured, variances that are known; us."""

    z: Matrix
    sums: Vector
    measured: Vector
    variance: Vector

    @classmethod
    def of(cls, blocks: Blocks, features: ContextFeatures, samples: Sequence[Sample]) -> _Data:
        architectures = [s.architecture for s in samples]
        measured = np.array([s.measured_us for s in samples])
        # two halves differ by twice the standard error of the whole
        error2 = float(np.mean([((s.halves_us[0] - s.halves_us[1]) / 2) ** 2 for s in samples]))
        variance = blocks.variances(architectures) + error2 + (LEAST_NOISE * measured) ** 2
        return cls(features.matrix(architectures), blocks.sums(architectures), measured, variance)

    def some(self, rows: NDArray[np.int64]) -> _Data:
        return _Data(self.z[rows], self.sums[rows], self.measured[rows], self.variance[rows])


@dataclass(frozen=True, eq=False)
class Feedback:
    """What whole models have beside their blocks' sums.

    Attributes:
        constant_us: effects_us: (features,) means of v; covariance_us2: theirs, (features, features).
    """

    blocks: Blocks
    features: ContextFeatures
    constant_us: float
    effects_us: Vector
    covariance_us2: Matrix
    spreads: Spreads

    @classmethod
    def fitted(cls, space: SearchSpace, blocks: Blocks, samples: Sequence[Sample]) -> Feedback:
        """Fitted to whole models; with fewer than FEWEST it is the prior and a constant."""
        features = ContextFeatures.of(space, blocks.latency_us)
        fitter = _Fitter.of(features, blocks)
        if len(samples) < FEWEST:
            spreads = Spreads.of(STARTS)
            gaps = [s.measured_us - float(blocks.sums([s.architecture])[0]) for s in samples]
            constant = float(np.median(gaps)) if gaps else 0.0
            return cls(
                blocks, features, constant, np.zeros(len(features.names)), np.diag(fitter.prior(spreads)), spreads
            )
        data = _Data.of(blocks, features, samples)
        spreads = fitter.likeliest(data)
        mean, covariance = fitter.solve(data, spreads)
        return cls(blocks, features, float(mean[0]), mean[1:], covariance[1:, 1:], spreads)

    def predict_us(self, architectures: Sequence[Architecture]) -> Vector:
        """Whole models' expected latencies, seams included, (n,)."""
        added = self.features.matrix(architectures) @ self.effects_us
        predicted: Vector = self.blocks.sums(architectures) + self.constant_us + added
        return predicted

    def spread_us2(self, architectures: Sequence[Architecture]) -> tuple[Matrix, Vector]:
        """Covariance (n, n) of what context adds, and the variance (n,) of what is each model's own."""
        z = self.features.matrix(architectures)
        own: Vector = (self.spreads.own * self.blocks.sums(architectures)) ** 2
        return z @ self.covariance_us2 @ z.T, own

    def corrected(self, table: Table) -> Table:
        """The table with each block's own effects, which a sum over blocks can hold; seams are left out.

        Intervals: the entry's own and the effects' together.
        """
        entries = {}
        for subnet, entry in table.entries.items():
            z = self.features.rows[subnet]
            value = max(entry.value + float(z @ self.effects_us), 1.0)
            wider = Z95 * float(np.sqrt(max(float(z @ self.covariance_us2 @ z), 0.0)))
            low, high = np.hypot(entry.value - entry.low, wider), np.hypot(entry.high - entry.value, wider)
            entries[subnet] = Entry(value, max(value - float(low), 0.0), value + float(high), entry.n, "corrected")
        return replace(table, entries=entries)


@dataclass(frozen=True, eq=False)
class _Fitter:
    features: ContextFeatures
    units: Vector  # (features,) what a share is of: the mean latency of the block, of a seam's two on average

    @classmethod
    def of(cls, features: ContextFeatures, blocks: Blocks) -> _Fitter:
        by_block: dict[int, list[float]] = {}
        for subnet, us in blocks.latency_us.items():
            by_block.setdefault(subnet.block, []).append(us)
        sizes = {block: float(np.mean(values)) for block, values in by_block.items()}
        units = [float(np.mean([sizes[b] for b in of])) for of in features.blocks]
        return cls(features, np.array(units))

    def prior(self, spreads: Spreads) -> Vector:
        """(features,) variances."""
        shares = np.array([getattr(spreads, name) for name in CONTEXT_GROUPS])[self.features.group]
        variances: Vector = (shares * self.units) ** 2
        return variances

    def _kernel(self, data: _Data, spreads: Spreads) -> tuple[Matrix, Matrix, Vector]:
        """Covariance of the measured less the sums (n, n), of (constant, v) with it, and the prior of those."""
        prior = np.r_[(10 * data.measured.mean()) ** 2, self.prior(spreads)]  # of the constant nothing is known
        z = np.column_stack([np.ones(len(data.sums)), data.z])
        crossed = prior[:, None] * z.T
        noise = data.variance + (spreads.own * data.measured) ** 2
        return z @ crossed + np.diag(noise), crossed, prior

    def evidence(self, data: _Data, spreads: Spreads) -> float:
        """log p(measured | spreads), up to a constant."""
        from scipy.linalg import solve_triangular

        root = np.linalg.cholesky(self._kernel(data, spreads)[0])
        half = solve_triangular(root, data.measured - data.sums, lower=True)
        return float(-0.5 * half @ half - np.log(np.diag(root)).sum())

    def likeliest(self, data: _Data) -> Spreads:
        from scipy.optimize import minimize

        def cost(logs: Vector) -> float:
            return -self.evidence(data, Spreads.of(logs)) + float((((logs - STARTS) / 6) ** 2).sum())

        options = {"xatol": 0.1, "fatol": 0.05, "maxfev": 150}
        found = [minimize(cost, start, method="Nelder-Mead", options=options) for start in (STARTS, JOINED)]
        return Spreads.of(min(found, key=lambda f: float(f.fun)).x)

    def solve(self, data: _Data, spreads: Spreads) -> tuple[Vector, Matrix]:
        """Posterior mean (1 + features,) and covariance of (constant, v)."""
        kernel, crossed, prior = self._kernel(data, spreads)
        gain = np.linalg.solve(kernel, crossed.T).T
        mean: Vector = gain @ (data.measured - data.sums)
        covariance: Matrix = np.diag(prior) - gain @ crossed.T
        return mean, covariance


def held_out(space: SearchSpace, table: Table, samples: Sequence[Sample], more: Sequence[Sample] = ()) -> Vector:
    """Each of `samples` (n,) predicted by a fit on the other folds and on `more`, which is never judged."""
    blocks = Blocks.of(table)
    features = ContextFeatures.of(space, blocks.latency_us)
    fitter = _Fitter.of(features, blocks)
    data = _Data.of(blocks, features, [*samples, *more])
    fold = np.arange(len(samples)) % min(FOLDS, len(samples))
    kept_for_fit = np.arange(len(samples), len(data.sums))
    predicted = np.empty(len(samples))
    for number in range(fold.max() + 1):
        rest = data.some(np.r_[np.flatnonzero(fold != number), kept_for_fit])
        mean, _ = fitter.solve(rest, fitter.likeliest(rest))
        out = data.some(np.flatnonzero(fold == number))
        predicted[fold == number] = out.sums + mean[0] + out.z @ mean[1:]
    return predicted


def plain(table: Table, samples: Sequence[Sample], more: Sequence[Sample] = ()) -> Vector:
    """Each of `samples` predicted by the table's sum and the median offset of all the others, (n,)."""
    sums = np.array([table.total(s.architecture) for s in (*samples, *more)])
    gap = np.array([s.measured_us for s in (*samples, *more)]) - sums
    predicted: Vector = np.array([sums[i] + np.median(np.delete(gap, i)) for i in range(len(samples))])
    return predicted


def correct(
    space: SearchSpace, table: Table, samples: Sequence[Sample], more: Sequence[Sample] = ()
) -> tuple[Table, Correction, Feedback | None]:
    """The corrected table, what was learnt, and the model with its seams; without it where it does not help.

    `more`: models that are fitted to but not judged on. Raises `CheckFailed` where ranks are undefined, or for fewer
    models than a fit needs.
    """
    if len(samples) < FEWEST:
        raise CheckFailed(f"{len(samples)} whole models are too few for a correction; measure at least {FEWEST}")
    feedback = Feedback.fitted(space, Blocks.of(table), [*samples, *more])
    y = np.array([s.measured_us for s in samples])
    before, after = plain(table, samples, more), held_out(space, table, samples, more)
    ranks = tau_b(np.array([table.total(s.architecture) for s in samples]), y), tau_b(after, y)
    applied = mean_error(after, y) < mean_error(before, y) and ranks[1] >= ranks[0]
    everyone = [*samples, *more]
    gaps = [s.measured_us - table.total(s.architecture) for s in everyone]
    constant = feedback.constant_us if applied else float(np.median(gaps))
    effects = dict(zip(feedback.features.names, feedback.effects_us.tolist(), strict=True))
    largest = sorted(effects, key=lambda name: -abs(effects[name]))[:10] if applied else []
    correction = Correction(
        constant,
        len(everyone),
        *ranks,
        mean_error(before, y),
        mean_error(after, y),
        applied,
        asdict(feedback.spreads),
        {name: effects[name] for name in largest},
    )
    corrected = feedback.corrected(table) if applied else table
    provenance = {**table.provenance, "correction": plain_fields(correction)}
    return replace(corrected, provenance=provenance), correction, feedback if applied else None


def mean_error(predicted: Vector, measured: Vector) -> float:
    """Mean absolute percentage error."""
    return float(100 * np.mean(np.abs(predicted - measured) / measured))
