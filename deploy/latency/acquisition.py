"""Which measurement is worth most: variance times relevance, per second of board time.

Tables are drawn from the posterior (Thompson's idea) and the exact front of each is computed. The next measurement is
the one that most reduces the variance of the latencies of the architectures on those fronts, per second of the board.
A share of the relevance belongs to random architectures, since the table has to rank those too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.latency.agreement import tau_b
from deploy.latency.context_model import ContextModel
from deploy.latency.features import Matrix, Vector
from deploy.latency.latency_source import LatencySource, Observations
from deploy.latency.predictor import LEAST_NOISE, BlockModel
from nas.search.candidates import Candidates
from nas.search.front import Front, front
from nas.search.hypervolume import hypervolume
from nas.space import Architecture, Subnet
from nas.table import Table

Rows = NDArray[np.int64]
MOST_ON_FRONTS = 400  # architectures of the drawn fronts that variances are computed for
RANDOM = 200  # random architectures
MOST_NETWORKS = 64  # architectures of the drawn fronts, as full networks


@dataclass(frozen=True, eq=False)
class PosteriorFronts:
    """Pareto fronts of tables drawn from the posterior.

    Attributes:
        on_fronts: (n, blocks) cells of architectures on them.
        random: (n, blocks) cells of random architectures.
        expected_loss: expected loss of hypervolume, as a share, of choosing by the mean table.
        expected_tau: mean tau-b between the sums of the mean table and of the drawn ones, over random architectures.
    """

    on_fronts: Rows
    random: Rows
    expected_loss: float
    expected_tau: float

    @classmethod
    def drawn(cls, model: BlockModel, nsr: Table, draws: int, rng: np.random.Generator) -> PosteriorFronts:
        noise = nsr.column(model.cells)
        blocks = np.array([s.block for s in model.cells])
        by_block = [np.flatnonzero(blocks == b) for b in np.unique(blocks)]
        by_mean = _front(model, noise, model.mean_us, by_block)
        chosen = cell_rows(by_mean, model)
        random = np.column_stack([rng.choice(rows, RANDOM) for rows in by_block])
        reference = 1.02 * by_mean.costs.max(axis=0)
        fronts, losses, taus = [chosen], [], []
        for latency in np.maximum(model.samples(draws, rng), 1.0):
            best_front = _front(model, noise, latency, by_block)
            fronts.append(cell_rows(best_front, model))
            by_choice = np.column_stack([noise[chosen].sum(axis=1), latency[chosen].sum(axis=1)])
            best = hypervolume(best_front.costs, reference)
            losses.append(1 - hypervolume(by_choice, reference) / best if best > 0 else 0.0)
            taus.append(tau_b(model.mean_us[random].sum(axis=1), latency[random].sum(axis=1)))
        on_fronts = np.concatenate(fronts)
        if len(on_fronts) > MOST_ON_FRONTS:
            on_fronts = on_fronts[rng.choice(len(on_fronts), MOST_ON_FRONTS, replace=False)]
        return cls(on_fronts, random, float(np.mean(losses)), float(np.mean(taus)))

    def weighted(self, random_share: float) -> tuple[Rows, Vector]:
        """(n, blocks) all architectures, and the relevance of each, (n,), which sums to 1."""
        shares = (1 - random_share) / len(self.on_fronts), random_share / len(self.random)
        weights = np.repeat(shares, [len(self.on_fronts), len(self.random)])
        return np.concatenate([self.on_fronts, self.random]), weights


def _front(model: BlockModel, nsr: Vector, latency: Vector, by_block: Sequence[Rows]) -> Front:
    subnets = tuple(tuple(model.cells[i] for i in rows.tolist()) for rows in by_block)
    costs = tuple(np.column_stack([nsr[rows], latency[rows]]) for rows in by_block)
    return front(Candidates(("nsr", "latency"), subnets, costs))


def cell_rows(front: Front, model: BlockModel) -> Rows:
    """(architectures, blocks) the model's cells that a front's architectures consist of."""
    columns = [
        np.array([model.index[subnet] for subnet in block])[front.choices[:, b]]
        for b, block in enumerate(front.pruned.subnets)
    ]
    return np.column_stack(columns)


def next_batch(
    model: BlockModel,
    fronts: PosteriorFronts,
    source: LatencySource,
    networks: Networks,
    *,
    size: int,
    random_share: float,
) -> tuple[list[Subnet], list[Architecture]]:
    """The next `size` measurements, chosen one after the other: variances do not depend on the values measured."""
    gains = _BlockGains.of(model, fronts, source, random_share)
    blocks: list[Subnet] = []
    chosen: list[Architecture] = []
    for _ in range(size):
        best, rate = gains.best()
        if networks.best_rate() > rate:
            chosen.append(networks.take())
            continue
        if rate < 0:
            break
        blocks.append(model.cells[best])
        gains.take(best)
    return blocks, chosen


@dataclass(eq=False)
class _BlockGains:
    """How much the measurement of each cell would reduce the variance of the architectures' latencies.

    Attributes:
        x: (cells, features) the model's directions.
        targets: (architectures, features) sums of them.
        weights: (architectures,) relevance.
        noise: (cells,) variance of a measurement beside that of w.
        subnet_gain: (cells,) reduction of the variance that no feature explains.
        took_s: (cells,) board time of a measurement.
        free: (cells,) whether it is not measured yet.
        cross: (architectures, features) targets times the covariance of w.
        along: (cells, features) x times the covariance of w.
    """

    x: Matrix
    targets: Matrix
    weights: Vector
    noise: Vector
    subnet_gain: Vector
    took_s: Vector
    free: NDArray[np.bool_]
    cross: Matrix
    along: Matrix

    @classmethod
    def of(cls, model: BlockModel, fronts: PosteriorFronts, source: LatencySource, random_share: float) -> _BlockGains:
        x, variance = model.directions, model.subnet_variance_us2
        rows, weights = fronts.weighted(random_share)
        targets = x[rows].sum(axis=1)
        relevance = np.bincount(rows.ravel(), np.repeat(weights, rows.shape[1]), len(x))
        size = np.maximum(model.mean_us, 1.0)
        noise = variance + (LEAST_NOISE * size) ** 2
        took_s = np.array([source.seconds(us) for us in size])
        gain = relevance * variance**2 / noise
        covariance = model.weights
        return cls(x, targets, weights, noise, gain, took_s, ~model.measured, targets @ covariance, x @ covariance)

    def best(self) -> tuple[int, float]:
        """The cell of the largest gain per second, and that; negative where all are measured."""
        gain = self.weights @ (self.cross @ self.x.T) ** 2 / self._variance() + self.subnet_gain
        rate = np.where(self.free, gain / self.took_s, -1.0)
        best = int(np.argmax(rate))
        return best, float(rate[best])

    def take(self, cell: int) -> None:
        """Count the cell as measured: the covariance of w loses an outer product."""
        self.free[cell] = False
        step = self.along[cell] / np.sqrt(self._variance()[cell])  # (features,)
        self.cross = self.cross - np.outer(self.targets @ step, step)
        self.along = self.along - np.outer(self.x @ step, step)

    def _variance(self) -> Vector:
        variance: Vector = np.einsum("ij,ij->i", self.along, self.x) + self.noise
        return variance


@dataclass(eq=False)
class Networks:
    """Full networks to measure, for what their blocks have in context, which no isolated block shows.

    Attributes:
        architectures: those that may be measured.
        toward: (targets, candidates) covariance of what context adds; targets are on drawn fronts.
        among: (candidates, candidates) the same.
        noise: (candidates,) variance of a measurement beside it.
        took_s: (candidates,) board time of a measurement.
    """

    architectures: list[Architecture]
    toward: Matrix
    among: Matrix
    noise: Vector
    took_s: Vector

    @classmethod
    def of(
        cls,
        context: ContextModel,
        fronts: PosteriorFronts,
        model: BlockModel,
        source: LatencySource,
        observed: Observations,
    ) -> Networks:
        rows = np.unique(fronts.on_fronts, axis=0)
        rows = rows[:: max(1, len(rows) // MOST_NETWORKS)]
        targets = [Architecture(tuple(model.cells[i] for i in row)) for row in rows.tolist()]
        done = {network.architecture for network in observed.networks}
        architectures = [a for a in source.measurable(targets) if a not in done]
        if not architectures:
            return cls([], np.zeros((len(targets), 0)), np.zeros((0, 0)), np.zeros(0), np.zeros(0))
        together, unexplained = context.covariance_of([*targets, *architectures])
        n = len(targets)
        by_blocks = np.array([sum(model.subnet_variance_us2[model.index[s]] for s in a.subnets) for a in architectures])
        took_s = np.array([source.seconds(us) for us in context.predict_us(architectures)])
        return cls(architectures, together[:n, n:], together[n:, n:], unexplained[n:] + by_blocks, took_s)

    def _rates(self) -> Vector:
        rates: Vector = (self.toward**2).mean(axis=0) / (np.diag(self.among) + self.noise) / self.took_s
        return rates

    def best_rate(self) -> float:
        """The largest gain per second; negative where there is no network."""
        return float(self._rates().max()) if self.architectures else -1.0

    def take(self) -> Architecture:
        """The network of the largest gain per second, which counts as measured then."""
        best = int(np.argmax(self._rates()))
        root = np.sqrt(self.among[best, best] + self.noise[best])
        step, aside = self.among[best] / root, self.toward[:, best] / root
        keep = np.arange(len(self.architectures)) != best
        self.toward = (self.toward - np.outer(aside, step))[:, keep]
        self.among = (self.among - np.outer(step, step))[keep][:, keep]
        self.noise, self.took_s = self.noise[keep], self.took_s[keep]
        return self.architectures.pop(best)
