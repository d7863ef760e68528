"""Block latencies of one device as one Gaussian model: the measured ones, and predictions for the others.

    latency(s)  = features(s) . w + e(s),    w ~ N(0, prior_std^2 of its group),    e(s) ~ N(0, (subnet * size of s)^2)
    measured(s) = latency(s) + noise

`features` are those of `deploy.latency.features`: operator counts (nn-Meter's idea), with smaller corrections for the
position of a choice and for the choice that follows it. e is the part that no feature explains. The groups' prior
standard deviations maximize the likelihood of the measurements (type II maximum likelihood). The estimate of a measured
subnet stays near its measurement; any other is predicted from its features, with the uncertainty that this leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deploy.latency.estimates import CLOCK_US, Z95, standard_error
from deploy.latency.features import GROUPS, BlockFeatures, Matrix, Vector
from hil.errors import UsageError
from nas.estimate import Estimate
from nas.settings import STRICT
from nas.space import Subnet

FIXED_STD = {"kernels": 1.0, "variants": 0.3, "blocks": 0.3}  # of the mean latency: weak, the data decide
LEAST_NOISE = 0.002  # of a latency: medians of the same file on another day differ by this much at least
MOST_FOR_HYPERPARAMETERS = 600  # measurements that the groups' prior standard deviations are fitted to
STARTS = np.log([0.1, 0.03, 0.01])  # layers, pairs, subnet: shares of a latency


@dataclass(frozen=True)
class BlockPriorStd:
    """Prior standard deviations, as shares of a block's typical latency.

    Attributes:
        layers: of the effect of a layer's choice.
        pairs: of the effect of two successive choices.
        subnet: of the part of a subnet's latency that no feature explains.
    """

    layers: float
    pairs: float
    subnet: float
    __pydantic_config__ = STRICT

    @classmethod
    def of_logs(cls, logs: Sequence[float]) -> BlockPriorStd:
        return cls(*np.exp(np.clip(logs, -9.0, 1.0)).tolist())


@dataclass(frozen=True, eq=False)
class BlockModel:
    """The posterior of the latencies of all subnets in `cells`.

    Attributes:
        cells: the subnets, one for all widths that execute alike.
        mean_us: (cells,) posterior means.
        directions: (cells, features) the derivative of a cell's latency by w; smaller, the better it was measured.
        weights: (features, features) posterior covariance of w.
        subnet_variance_us2: (cells,) variance that is not due to w.
        measured: (cells,) whether the cell itself was measured.
        prior_std: of the groups of features.
    """

    cells: tuple[Subnet, ...]
    mean_us: Vector
    directions: Matrix
    weights: Matrix
    subnet_variance_us2: Vector
    measured: NDArray[np.bool_]
    prior_std: BlockPriorStd

    @cached_property
    def index(self) -> Mapping[Subnet, int]:
        return {subnet: i for i, subnet in enumerate(self.cells)}

    @cached_property
    def deviation_us(self) -> Vector:
        """(cells,) posterior standard deviations."""
        by_weights = np.einsum("ij,jk,ik->i", self.directions, self.weights, self.directions)
        deviation: Vector = np.sqrt(by_weights + self.subnet_variance_us2)
        return deviation

    def samples(self, count: int, rng: np.random.Generator) -> Matrix:
        """(count, cells) tables drawn from the posterior, microseconds."""
        root = np.linalg.cholesky(self.weights + 1e-12 * np.trace(self.weights) * np.eye(len(self.weights)))
        w = rng.standard_normal((count, len(root))) @ root.T
        effects = rng.standard_normal((count, len(self.cells))) * np.sqrt(self.subnet_variance_us2)
        drawn: Matrix = self.mean_us + w @ self.directions.T + effects
        return drawn


def fit(
    features: BlockFeatures,
    measured: Mapping[Subnet, Estimate],
    *,
    prior_std: BlockPriorStd | None = None,
    seed: int = 0,
) -> BlockModel:
    """The posterior of every subnet that has features, from the latencies of some, microseconds.

    `prior_std`: None: the ones of maximum likelihood.
    Raises `UsageError` for too few measurements for a fit, or one that is not finite and positive.
    """
    cells = tuple(features.rows)
    index = {subnet: i for i, subnet in enumerate(cells)}
    subnets = sorted(measured, key=index.__getitem__)
    y = np.array([measured[subnet].value for subnet in subnets])
    error = np.array([error_us(measured[subnet]) for subnet in subnets])
    finite = np.isfinite(y) & (y > 0) & np.isfinite(error)
    if not finite.all():
        bad = subnets[int(np.argmin(finite))]
        raise UsageError(f"{bad}: a latency of {measured[bad].value} us cannot be fitted; measure it again")
    blocks = len({subnet.block for subnet in cells})
    if len(subnets) < 2 * blocks:
        raise UsageError(f"{len(subnets)} measured subnets are too few for a fit of {blocks} blocks; measure more")
    x_all = features.matrix(cells)
    rows = np.array([index[subnet] for subnet in subnets])
    problem = _Problem(x_all[rows], y, np.hypot(error, LEAST_NOISE * y), features.group)
    return _posterior(problem, prior_std or _fit_hyperparameters(problem, seed), x_all, rows, cells)


def error_us(measured: Estimate) -> float:
    """The standard error of a measured latency; one from an interval is not below the clock's."""
    return standard_error(measured) if measured.std_error is not None else max(standard_error(measured), CLOCK_US)


def predict(model: BlockModel, measured: Mapping[Subnet, Estimate]) -> dict[Subnet, Estimate]:
    """An estimate for every cell: its posterior. `measured` has the number of runs of those that were measured.

    A measurement whose rounds agree stays nearly as it was; one whose rounds differ is drawn to its prediction from
    the others.
    """
    estimates = {}
    for subnet, mean, deviation in zip(model.cells, model.mean_us.tolist(), model.deviation_us.tolist(), strict=True):
        measurement = measured.get(subnet)
        low, high = max(mean - Z95 * deviation, 0.0), mean + Z95 * deviation
        n, source = (measurement.n, measurement.source) if measurement else (0, "predicted")
        estimates[subnet] = Estimate(mean, deviation, low, high, n, source)
    return estimates


@dataclass(frozen=True, eq=False)
class _Problem:
    """n measurements.

    Attributes:
        x: (n, features) the design.
        y: (n,) latencies, microseconds.
        error: (n,) their standard errors.
        group: (features,) the group of each.
    """

    x: Matrix
    y: Vector
    error: Vector
    group: NDArray[np.int64]

    @cached_property
    def sizes(self) -> Vector:
        """(n,) the unit of a subnet's unexplained part: its measured latency, at least 1 us."""
        return np.maximum(self.y, 1.0)

    def some(self, rows: NDArray[np.int64]) -> _Problem:
        return _Problem(self.x[rows], self.y[rows], self.error[rows], self.group)

    def prior(self, prior_std: BlockPriorStd) -> Vector:
        """Variance of each feature's weight, (features,).

        A choice's effect is a share of the typical latency of its block.
        """
        scale = float(np.mean(self.y))
        typical = self.typical
        by_group = {name: (share * scale) ** 2 for name, share in FIXED_STD.items()}
        variance = np.array([by_group.get(name, 0.0) for name in GROUPS])[self.group]
        for name, share in (("layers", prior_std.layers), ("pairs", prior_std.pairs)):
            chosen = self.group == GROUPS.index(name)
            variance[chosen] = (share * typical[chosen]) ** 2
        return variance

    @cached_property
    def typical(self) -> Vector:
        """(features,) the mean latency of the subnets with the feature, microseconds; of all where none has it."""
        has = self.x != 0
        counts = has.sum(axis=0)
        means = (self.y @ has) / np.maximum(counts, 1)
        typical: Vector = np.where(counts > 0, means, self.y.mean())
        return typical


def _solve(problem: _Problem, prior_std: BlockPriorStd) -> tuple[Matrix, Vector, float]:
    """(root of the covariance of w, mean of w, log evidence)."""
    from scipy.linalg import solve_triangular

    noise = problem.error**2 + (prior_std.subnet * problem.sizes) ** 2
    prior = problem.prior(prior_std)
    a = problem.x * np.sqrt(prior) / np.sqrt(noise)[:, None]  # whitened
    target = problem.y / np.sqrt(noise)
    gram = a.T @ a + np.eye(a.shape[1])
    root = np.linalg.cholesky(gram)
    half = solve_triangular(root, a.T @ target, lower=True)
    evidence = -0.5 * (target @ target - half @ half) - np.log(np.diag(root)).sum() - 0.5 * np.log(noise).sum()
    inverse = solve_triangular(root, np.diag(np.sqrt(prior)), lower=True)  # cov(w) = inverse.T @ inverse
    return inverse, inverse.T @ half, float(evidence)


def _evidence(problem: _Problem, prior_std: BlockPriorStd) -> float:
    """log p(measured | prior_std), in the measurements' dimension when that is the smaller."""
    from scipy.linalg import solve_triangular

    n, features = problem.x.shape
    if n >= features:
        return _solve(problem, prior_std)[2]
    noise = problem.error**2 + (prior_std.subnet * problem.sizes) ** 2
    a = problem.x * np.sqrt(problem.prior(prior_std))
    root = np.linalg.cholesky(a @ a.T + np.diag(noise))
    half = solve_triangular(root, problem.y, lower=True)
    return float(-0.5 * half @ half - np.log(np.diag(root)).sum())


def _fit_hyperparameters(problem: _Problem, seed: int) -> BlockPriorStd:
    """The prior standard deviations of maximum likelihood, from a subset of many measurements."""
    from scipy.optimize import minimize

    if len(problem.y) > MOST_FOR_HYPERPARAMETERS:
        rows = np.random.default_rng(seed).choice(len(problem.y), MOST_FOR_HYPERPARAMETERS, replace=False)
        problem = problem.some(np.sort(rows))
    weak = np.array([1.0, 2.0, 1.0])  # logarithms stay near the starts unless the data contradict

    def cost(logs: Vector) -> float:
        evidence = _evidence(problem, BlockPriorStd.of_logs(logs.tolist()))
        return -evidence + float((((logs - STARTS) / weak / 3) ** 2).sum())

    best = minimize(cost, STARTS, method="Nelder-Mead", options={"xatol": 0.05, "fatol": 0.05, "maxfev": 80})
    return BlockPriorStd.of_logs(best.x.tolist())


def _posterior(
    problem: _Problem, prior_std: BlockPriorStd, x_all: Matrix, rows: NDArray[np.int64], cells: tuple[Subnet, ...]
) -> BlockModel:
    """Of all cells with the design `x_all` (cells, features); `rows` are those that were measured."""
    inverse, w, _ = _solve(problem, prior_std)
    mean = x_all @ w
    directions = x_all.copy()
    variance = (prior_std.subnet * np.maximum(mean, 1.0)) ** 2
    unexplained = (prior_std.subnet * problem.sizes) ** 2
    gain = unexplained / (unexplained + problem.error**2)  # the share of a residual that is the subnet's, not noise
    mean[rows] += gain * (problem.y - mean[rows])
    directions[rows] *= (1 - gain)[:, None]
    variance[rows] = gain * problem.error**2
    measured = np.zeros(len(cells), bool)
    measured[rows] = True
    return BlockModel(cells, np.maximum(mean, 1.0), directions, inverse.T @ inverse, variance, measured, prior_std)
