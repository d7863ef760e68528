"""A device's block latencies as one Gaussian: what was measured, and what follows from it for what was not.

    latency(s) = features(s) . w + own(s),    w ~ N(0, prior of its group),    own(s) ~ N(0, (own * size of s)^2)
    measured(s) = latency(s) + noise

`features` are `deploy.latency.features`: kernels' sizes (nn-Meter's idea), and smaller corrections for where a choice
stands and what follows it. `own` is what no feature tells. Spreads of the groups are those that make what was measured
likeliest (type II maximum likelihood). A subnet that was measured keeps nearly its measurement; another one is told by
its features, with the uncertainty that this leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deploy.latency.features import GROUPS, Features, Matrix, Vector
from hil.errors import UsageError
from nas.estimate import Estimate
from nas.space import Subnet

KERNEL_SPREAD, VARIANT_SPREAD, BLOCK_SPREAD = 1.0, 0.3, 0.3  # of the mean latency: weak, the data decide
Z95 = 1.959964  # standard errors to either end of a 95 % interval
LEAST_NOISE = 0.002  # of a latency: medians of the same file on another day differ by this much at least
MOST_FOR_SPREADS = 600  # measurements that the groups' spreads are chosen by
STARTS = np.log([0.1, 0.03, 0.01])  # layers, pairs, own: shares of a latency


@dataclass(frozen=True)
class Measured:
    """One latency and the standard error of it, microseconds."""

    value_us: float
    error_us: float

    @classmethod
    def of(cls, entry: Estimate) -> Measured:
        """A table's entry; the clock tells no more than half a microsecond."""
        return cls(entry.value, max((entry.high - entry.low) / (2 * Z95), 0.5))


@dataclass(frozen=True, eq=False)
class Spreads:
    """Prior standard deviations, as shares of a block's typical latency."""

    layers: float
    pairs: float
    own: float

    @classmethod
    def of(cls, logs: Sequence[float]) -> Spreads:
        return cls(*np.exp(np.clip(logs, -9.0, 1.0)).tolist())


@dataclass(frozen=True, eq=False)
class BlockModel:
    """The posterior, for all subnets in `cells`.

    Attributes:
        mean_us: (cells,).
        directions: (cells, features): how a cell's latency moves with w; less, the better it was measured itself.
        weights: (features, features), posterior covariance of w.
        own_us2: (cells,) variance beside that of w.
        relative: whether any measurement went into it is `measured`, a mask.
    """

    cells: tuple[Subnet, ...]
    mean_us: Vector
    directions: Matrix
    weights: Matrix
    own_us2: Vector
    measured: NDArray[np.bool_]
    spreads: Spreads

    @cached_property
    def index(self) -> Mapping[Subnet, int]:
        return {subnet: i for i, subnet in enumerate(self.cells)}

    @cached_property
    def deviation_us(self) -> Vector:
        """(cells,) standard deviations."""
        spread = np.einsum("ij,jk,ik->i", self.directions, self.weights, self.directions)
        deviation: Vector = np.sqrt(spread + self.own_us2)
        return deviation

    def samples(self, count: int, rng: np.random.Generator) -> Matrix:
        """(count, cells) tables as they may be, microseconds."""
        root = np.linalg.cholesky(self.weights + 1e-12 * np.trace(self.weights) * np.eye(len(self.weights)))
        w = rng.standard_normal((count, len(root))) @ root.T
        own = rng.standard_normal((count, len(self.cells))) * np.sqrt(self.own_us2)
        drawn: Matrix = self.mean_us + w @ self.directions.T + own
        return drawn


def fit(
    features: Features,
    measured: Mapping[Subnet, Measured],
    *,
    spreads: Spreads | None = None,
    seed: int = 0,
) -> BlockModel:
    """The posterior of every subnet that has features, given what was measured of some.

    Raises `UsageError` for fewer measurements than a fit can be made of, or one that is not finite and positive.
    """
    cells = tuple(features.rows)
    index = {subnet: i for i, subnet in enumerate(cells)}
    of = sorted(measured, key=index.__getitem__)
    y = np.array([measured[subnet].value_us for subnet in of])
    error = np.array([measured[subnet].error_us for subnet in of])
    if not (np.isfinite(y).all() and (y > 0).all() and np.isfinite(error).all()):
        bad = of[int(np.argmin(np.isfinite(y) & (y > 0) & np.isfinite(error)))]
        raise UsageError(f"{bad}: a latency of {measured[bad].value_us} us cannot be fitted; measure it again")
    blocks = len({subnet.block for subnet in cells})
    if len(of) < 2 * blocks:
        raise UsageError(f"{len(of)} measured subnets are too few for a fit of {blocks} blocks; measure more")
    x_all = features.matrix(cells)
    rows = np.array([index[subnet] for subnet in of])
    problem = _Problem(x_all[rows], y, np.hypot(error, LEAST_NOISE * y), features.group)
    if spreads is None:
        spreads = _likeliest(problem, seed)
    return _posterior(problem, spreads, x_all, rows, cells)


def told(model: BlockModel, measured: Mapping[Subnet, Estimate]) -> dict[Subnet, Estimate]:
    """An entry for every cell: its posterior. `measured` says how a cell was, and with how many runs.

    A measurement that agrees with itself stays nearly as it was; one whose rounds differ is drawn to what the others
    tell of it.
    """
    entries = {}
    for subnet, mean, deviation in zip(model.cells, model.mean_us.tolist(), model.deviation_us.tolist(), strict=True):
        there = measured.get(subnet)
        n, source = (there.n, there.source) if there else (0, "predicted")
        entries[subnet] = Estimate(mean, deviation, max(mean - Z95 * deviation, 0.0), mean + Z95 * deviation, n, source)
    return entries


@dataclass(frozen=True, eq=False)
class _Problem:
    """`sizes` (n,): about how long each takes, the unit of what is relative."""

    x: Matrix
    y: Vector
    error: Vector
    group: NDArray[np.int64]

    @cached_property
    def sizes(self) -> Vector:
        """From a first fit of the kernels alone, never below a tenth of the measured."""
        return np.maximum(self.y, 1.0)

    def some(self, rows: NDArray[np.int64]) -> _Problem:
        return _Problem(self.x[rows], self.y[rows], self.error[rows], self.group)

    def prior(self, spreads: Spreads) -> Vector:
        """Variance of each feature's weight, (features,).

        A choice's effect is a share of what its block typically takes.
        """
        scale = float(np.mean(self.y))
        typical = self.typical
        shares = {"kernels": KERNEL_SPREAD, "variants": VARIANT_SPREAD, "blocks": BLOCK_SPREAD}
        by_group = {name: (share * scale) ** 2 for name, share in shares.items()}
        variance = np.array([by_group.get(name, 0.0) for name in GROUPS])[self.group]
        for name, share in (("layers", spreads.layers), ("pairs", spreads.pairs)):
            chosen = self.group == GROUPS.index(name)
            variance[chosen] = (share * typical[chosen]) ** 2
        return variance

    @cached_property
    def typical(self) -> Vector:
        """(features,) the mean latency of what has the feature, microseconds; of all where nothing has it."""
        has = self.x != 0
        counts = has.sum(axis=0)
        means = (self.y @ has) / np.maximum(counts, 1)
        typical: Vector = np.where(counts > 0, means, self.y.mean())
        return typical


def _solve(problem: _Problem, spreads: Spreads) -> tuple[Matrix, Vector, float]:
    """(covariance root rows, mean of w, log evidence)."""
    noise = problem.error**2 + (spreads.own * problem.sizes) ** 2
    prior = problem.prior(spreads)
    a = problem.x * np.sqrt(prior) / np.sqrt(noise)[:, None]  # whitened
    target = problem.y / np.sqrt(noise)
    gram = a.T @ a + np.eye(a.shape[1])
    root = np.linalg.cholesky(gram)
    from scipy.linalg import solve_triangular

    half = solve_triangular(root, a.T @ target, lower=True)
    evidence = -0.5 * (target @ target - half @ half) - np.log(np.diag(root)).sum() - 0.5 * np.log(noise).sum()
    inverse = solve_triangular(root, np.diag(np.sqrt(prior)), lower=True)  # cov(w) = inverse.T @ inverse
    return inverse, inverse.T @ half, float(evidence)


def _evidence(problem: _Problem, spreads: Spreads) -> float:
    """log p(measured | spreads), in the measurements' dimension when that is the smaller."""
    n, features = problem.x.shape
    if n >= features:
        return _solve(problem, spreads)[2]
    noise = problem.error**2 + (spreads.own * problem.sizes) ** 2
    a = problem.x * np.sqrt(problem.prior(spreads))
    root = np.linalg.cholesky(a @ a.T + np.diag(noise))
    from scipy.linalg import solve_triangular

    half = solve_triangular(root, problem.y, lower=True)
    return float(-0.5 * half @ half - np.log(np.diag(root)).sum())


def _likeliest(problem: _Problem, seed: int) -> Spreads:
    from scipy.optimize import minimize

    if len(problem.y) > MOST_FOR_SPREADS:
        rows = np.random.default_rng(seed).choice(len(problem.y), MOST_FOR_SPREADS, replace=False)
        problem = problem.some(np.sort(rows))
    weak = np.array([1.0, 2.0, 1.0])  # log spreads near the starts unless the data say otherwise

    def cost(logs: Vector) -> float:
        return -_evidence(problem, Spreads.of(logs.tolist())) + float((((logs - STARTS) / weak / 3) ** 2).sum())

    found = minimize(cost, STARTS, method="Nelder-Mead", options={"xatol": 0.05, "fatol": 0.05, "maxfev": 80})
    return Spreads.of(found.x.tolist())


def _posterior(
    problem: _Problem, spreads: Spreads, x_all: Matrix, rows: NDArray[np.int64], cells: tuple[Subnet, ...]
) -> BlockModel:
    inverse, w, _ = _solve(problem, spreads)
    mean = x_all @ w
    directions = x_all.copy()
    own = (spreads.own * np.maximum(mean, 1.0)) ** 2
    own_there = (spreads.own * problem.sizes) ** 2
    gain = own_there / (own_there + problem.error**2)  # how much of a residual is the subnet's own
    mean[rows] += gain * (problem.y - mean[rows])
    directions[rows] *= (1 - gain)[:, None]
    own[rows] = gain * problem.error**2
    mask = np.zeros(len(cells), bool)
    mask[rows] = True
    return BlockModel(cells, np.maximum(mean, 1.0), directions, inverse.T @ inverse, own, mask, spreads)
