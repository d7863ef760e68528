"""What full networks take besides the sum of their blocks: a regularized linear model, fitted to measured ones.

    measured(a) = constant + sum over blocks of table(block) + z(a) . v + noise,    v ~ N(0, prior_std^2 of its group)

z (`deploy.latency.features.ContextFeatures`) holds a slope for each block, an effect of each layer's choice, and one of
each pair of choices that meet at a block boundary. Isolated blocks lose fusion and pay for a graph's input and output;
both show here. The prior standard deviations maximize the likelihood of the measurements, so what few networks cannot
determine stays as the table has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.estimates import standard_error, widened
from deploy.latency.features import CONTEXT_GROUPS, ContextFeatures, Matrix, Vector
from deploy.latency.predictor import BlockModel
from nas.estimate import Estimate
from nas.space import Architecture, Boundary, SearchSpace, Subnet
from nas.table import Table

FEWEST = 4  # networks, for a fit to each fold's rest
STARTS = np.log([0.05, 0.01, 0.003, 0.005])  # slopes, layers, boundaries, network: shares of latencies
STRONG_BOUNDARIES = np.log([0.05, 0.01, 0.1, 0.005])  # a second start, from where strong ones are reached
LEAST_NOISE = 0.001  # of a latency


@dataclass(frozen=True)
class ContextPriorStd:
    """Prior standard deviations of effects, as shares of the mean latency of their blocks.

    Attributes:
        slopes: of a block's slope.
        layers: of a layer's choice.
        boundaries: of two choices at a block boundary.
        network: of the part of a network's latency that no feature explains, as a share of that latency.
    """

    slopes: float
    layers: float
    boundaries: float
    network: float

    @classmethod
    def of_logs(cls, logs: Vector) -> ContextPriorStd:
        return cls(*np.exp(np.clip(logs, -12.0, 0.0)).tolist())


@dataclass(frozen=True, eq=False)
class BlockLatencies:
    """Means and variances by subnet.

    Attributes:
        latency_us: means.
        variance_us2: variances.
        interactions: of two blocks, by the layers that meet at their boundary.
    """

    latency_us: Mapping[Subnet, float]
    variance_us2: Mapping[Subnet, float]
    interactions: Mapping[Boundary, Estimate] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table) -> BlockLatencies:
        entries = table.entries.items()
        variances = {s: standard_error(e) ** 2 for s, e in entries}
        return cls({s: e.value for s, e in entries}, variances, table.interactions)

    @classmethod
    def of_model(cls, model: BlockModel) -> BlockLatencies:
        means, variances = model.mean_us.tolist(), (model.deviation_us**2).tolist()
        return cls(dict(zip(model.cells, means, strict=True)), dict(zip(model.cells, variances, strict=True)))

    def sums(self, architectures: Sequence[Architecture]) -> Vector:
        blocks = np.array([sum(self.latency_us[s] for s in a.subnets) for a in architectures])
        met = [sum(term.value for term in self._interacting(a)) for a in architectures]
        return blocks + np.array(met) if self.interactions else blocks

    def variances(self, architectures: Sequence[Architecture]) -> Vector:
        blocks = np.array([sum(self.variance_us2[s] for s in a.subnets) for a in architectures])
        met = [sum(standard_error(term) ** 2 for term in self._interacting(a)) for a in architectures]
        return blocks + np.array(met) if self.interactions else blocks

    def _interacting(self, architecture: Architecture) -> Iterator[Estimate]:
        met = (Boundary.between(*pair) for pair in pairwise(architecture.subnets))
        return (self.interactions[boundary] for boundary in met if boundary in self.interactions)


@dataclass(frozen=True, eq=False)
class ContextData:
    """n full networks as numbers, microseconds.

    Attributes:
        z: (n, features) the design.
        sums: (n,) of the blocks' latencies.
        measured: (n,) latencies.
        variance: (n,) known variance: of the blocks' latencies and of the measurement.
    """

    z: Matrix
    sums: Vector
    measured: Vector
    variance: Vector

    @classmethod
    def of(cls, blocks: BlockLatencies, features: ContextFeatures, networks: Sequence[MeasuredNetwork]) -> ContextData:
        architectures = [n.architecture for n in networks]
        measured = np.array([n.measured_us for n in networks])
        # two halves differ by twice the standard error of the whole
        error2 = float(np.mean([((n.halves_us[0] - n.halves_us[1]) / 2) ** 2 for n in networks]))
        variance = blocks.variances(architectures) + error2 + (LEAST_NOISE * measured) ** 2
        return cls(features.matrix(architectures), blocks.sums(architectures), measured, variance)

    def some(self, rows: NDArray[np.int64]) -> ContextData:
        return ContextData(self.z[rows], self.sums[rows], self.measured[rows], self.variance[rows])


@dataclass(frozen=True, eq=False)
class ContextModel:
    """The posterior of what full networks have besides their blocks' sums.

    Attributes:
        blocks: the blocks' latencies.
        features: of the networks.
        constant_us: what every network has.
        effects_us: (features,) posterior means of v.
        covariance_us2: (features, features) posterior covariance of v.
        prior_std: of the groups of features.
    """

    blocks: BlockLatencies
    features: ContextFeatures
    constant_us: float
    effects_us: Vector
    covariance_us2: Matrix
    prior_std: ContextPriorStd

    @classmethod
    def fitted(cls, space: SearchSpace, blocks: BlockLatencies, networks: Sequence[MeasuredNetwork]) -> ContextModel:
        """Fitted to measured networks; with fewer than `FEWEST` it is the prior and a constant."""
        features = ContextFeatures.of(space, blocks.latency_us)
        fitter = ContextFitter.of(features, blocks)
        if len(networks) < FEWEST:
            prior_std = ContextPriorStd.of_logs(STARTS)
            gaps = [n.measured_us - float(blocks.sums([n.architecture])[0]) for n in networks]
            constant, zero = float(np.median(gaps)) if gaps else 0.0, np.zeros(len(features.names))
            return cls(blocks, features, constant, zero, np.diag(fitter.prior(prior_std)), prior_std)
        data = ContextData.of(blocks, features, networks)
        prior_std = fitter.fit_hyperparameters(data)
        mean, covariance = fitter.solve(data, prior_std)
        return cls(blocks, features, float(mean[0]), mean[1:], covariance[1:, 1:], prior_std)

    def predict_us(self, architectures: Sequence[Architecture]) -> Vector:
        """Expected latencies of full networks, block boundaries included, (n,)."""
        added = self.features.matrix(architectures) @ self.effects_us
        predicted: Vector = self.blocks.sums(architectures) + self.constant_us + added
        return predicted

    def covariance_of(self, architectures: Sequence[Architecture]) -> tuple[Matrix, Vector]:
        """Covariance (n, n) of what v adds, and the variance (n,) that no feature explains, us^2."""
        z = self.features.matrix(architectures)
        unexplained: Vector = (self.prior_std.network * self.blocks.sums(architectures)) ** 2
        return z @ self.covariance_us2 @ z.T, unexplained

    def corrected(self, table: Table) -> Table:
        """The table with the effects of each block, which a sum over blocks can hold; boundaries are left out."""
        entries = {subnet: self._corrected(subnet, entry) for subnet, entry in table.entries.items()}
        return replace(table, entries=entries)

    def _corrected(self, subnet: Subnet, entry: Estimate) -> Estimate:
        """Errors of the entry and of the effects are independent."""
        z = self.features.rows[subnet]
        value = max(entry.value + float(z @ self.effects_us), 1.0)
        error = float(np.sqrt(max(float(z @ self.covariance_us2 @ z), 0.0)))
        return widened(entry, value, error)


@dataclass(frozen=True, eq=False)
class ContextFitter:
    """Fits v and the constant to networks.

    Attributes:
        features: of the networks.
        units: (features,) what a share refers to: the mean latency of the block, at a boundary of its two on average.
    """

    features: ContextFeatures
    units: Vector

    @classmethod
    def of(cls, features: ContextFeatures, blocks: BlockLatencies) -> ContextFitter:
        by_block: dict[int, list[float]] = {}
        for subnet, us in blocks.latency_us.items():
            by_block.setdefault(subnet.block, []).append(us)
        sizes = {block: float(np.mean(values)) for block, values in by_block.items()}
        units = [float(np.mean([sizes[block] for block in about])) for about in features.blocks]
        return cls(features, np.array(units))

    def prior(self, prior_std: ContextPriorStd) -> Vector:
        """(features,) variances."""
        shares = np.array([getattr(prior_std, name) for name in CONTEXT_GROUPS])[self.features.group]
        variances: Vector = (shares * self.units) ** 2
        return variances

    def _kernel(self, data: ContextData, prior_std: ContextPriorStd) -> tuple[Matrix, Matrix, Vector]:
        """Covariance of measured - sums (n, n), of (constant, v) with it, and the prior variances of those."""
        prior = np.r_[(10 * data.measured.mean()) ** 2, self.prior(prior_std)]  # the constant may be anything
        z = np.column_stack([np.ones(len(data.sums)), data.z])
        crossed = prior[:, None] * z.T
        noise = data.variance + (prior_std.network * data.measured) ** 2
        return z @ crossed + np.diag(noise), crossed, prior

    def evidence(self, data: ContextData, prior_std: ContextPriorStd) -> float:
        """log p(measured | prior_std), up to a constant."""
        from scipy.linalg import solve_triangular

        root = np.linalg.cholesky(self._kernel(data, prior_std)[0])
        half = solve_triangular(root, data.measured - data.sums, lower=True)
        return float(-0.5 * half @ half - np.log(np.diag(root)).sum())

    def fit_hyperparameters(self, data: ContextData) -> ContextPriorStd:
        """The prior standard deviations of maximum likelihood."""
        from scipy.optimize import minimize

        def cost(logs: Vector) -> float:
            return -self.evidence(data, ContextPriorStd.of_logs(logs)) + float((((logs - STARTS) / 6) ** 2).sum())

        options = {"xatol": 0.1, "fatol": 0.05, "maxfev": 150}
        tried = [minimize(cost, start, method="Nelder-Mead", options=options) for start in (STARTS, STRONG_BOUNDARIES)]
        return ContextPriorStd.of_logs(min(tried, key=lambda t: float(t.fun)).x)

    def solve(self, data: ContextData, prior_std: ContextPriorStd) -> tuple[Vector, Matrix]:
        """Posterior mean (1 + features,) and covariance of (constant, v)."""
        kernel, crossed, prior = self._kernel(data, prior_std)
        gain = np.linalg.solve(kernel, crossed.T).T
        mean: Vector = gain @ (data.measured - data.sums)
        covariance: Matrix = np.diag(prior) - gain @ crossed.T
        return mean, covariance
