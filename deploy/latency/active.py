"""Board minutes where they count: which blocks, and which whole models, to measure next.

What is wanted is the front of (NSR, latency), not the table. So tables are drawn as they may be (Thompson's idea), the
exact front of each is computed, and the next measurement is the one that most reduces the variance of the latencies of
the architectures on those fronts, for each second of the board: variance times relevance. A share of the relevance goes
to architectures everywhere, since the table has to rank those too. It ends when the front is stable: when choosing by
the mean table is expected to lose next to nothing of the hypervolume, and to rank architectures as the true one does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.latency.agreement import Sample, tau_b
from deploy.latency.correction import Blocks, Feedback
from deploy.latency.features import Features, Matrix, Vector
from deploy.latency.predictor import LEAST_NOISE, BlockModel, Measured, fit
from nas.search.candidates import Candidates
from nas.search.front import Front, front
from nas.search.hypervolume import hypervolume
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table

MOST_ON_FRONTS = 400  # architectures of the drawn fronts that variances are computed for
ANYWHERE = 200  # random architectures
MOST_WHOLE = 64  # of them, for whole models


class Bench(Protocol):
    """What measures, and says how many seconds of the board each took; a replay of a recorded table is one."""

    def blocks(self, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, Measured, float]]: ...

    def models(self, architectures: Sequence[Architecture]) -> Iterator[tuple[Sample, float]]: ...

    def measurable(self, architectures: Sequence[Architecture]) -> Sequence[Architecture]:
        """The whole models that may be asked for, of those that would be: all on a board, others in a record."""
        ...

    def seconds(self, latency_us: float) -> float:
        """What measuring something of this latency takes the board, about."""
        ...


@dataclass(frozen=True)
class Plan:
    """How to spend.

    Attributes:
        budget_s: of the board; None: until the front is stable.
        most_blocks: None: no limit but the space.
        batch: measurements between two fits.
        tolerance: expected loss of hypervolume, as a share, below which the front is stable.
        tau_tolerance: likewise how far tau-b between the mean table and the drawn ones may be expected to be from 1.
        patience: how many fits in a row must say so.
        everywhere: share of the relevance that random architectures have.
        draws: tables that the front is computed of.
    """

    budget_s: float | None = None
    most_blocks: int | None = None
    batch: int = 24
    tolerance: float = 0.002
    tau_tolerance: float = 0.01
    everywhere: float = 0.5
    patience: int = 2
    draws: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Known:
    """What was measured so far."""

    blocks: Mapping[Subnet, Measured] = field(default_factory=dict)
    models: tuple[Sample, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Step:
    """After a batch: what is known, what follows from it, and what is expected of it."""

    known: Known
    model: BlockModel
    chances: Chances
    ended: str  # why no more is measured; empty: it goes on


def measure_actively(
    space: SearchSpace, features: Features, nsr: Table, bench: Bench, plan: Plan, *, known: Known = Known()
) -> Iterator[Step]:
    """Measure until the front is stable or the plan's limits are reached, a step a batch. Deterministic by seed.

    `known`: what was measured before; it is not asked for again.
    """
    rng = np.random.default_rng(plan.seed)
    first = [s for s in covering(space, tuple(features.rows), random.Random(plan.seed)) if s not in known.blocks]
    known = _measured(bench, known, first[: plan.most_blocks], ())
    calm = 0
    while True:
        model = fit(features, known.blocks, seed=plan.seed)
        chances = Chances.of(model, nsr, plan, rng)
        calm = calm + 1 if chances.stable(plan) else 0
        ended = _ended(plan, known, len(model.cells), calm)
        yield Step(known, model, chances, ended)
        if ended:
            return
        context = Feedback.fitted(space, Blocks.of_model(model), known.models)
        whole = _WholeModels.of(context, chances, model, bench, known)
        blocks, models = _choose(model, chances, bench, plan, whole)
        known = _measured(bench, known, blocks, models)


def _ended(plan: Plan, known: Known, cells: int, calm: int) -> str:
    if calm >= plan.patience:
        return "the front is stable"
    if plan.budget_s is not None and known.seconds >= plan.budget_s:
        return "the budget is spent"
    if len(known.blocks) >= min(plan.most_blocks or cells, cells):
        return "every block is measured" if len(known.blocks) >= cells else "as many blocks as were asked for"
    return ""


def _measured(bench: Bench, known: Known, blocks: Sequence[Subnet], models: Sequence[Architecture]) -> Known:
    found, samples, seconds = dict(known.blocks), list(known.models), known.seconds
    for subnet, measured, took_s in bench.blocks(blocks):
        found[subnet] = measured
        seconds += took_s
    for sample, took_s in bench.models(models):
        samples.append(sample)
        seconds += took_s
    return Known(found, tuple(samples), seconds)


def covering(space: SearchSpace, cells: Sequence[Subnet], rng: random.Random) -> list[Subnet]:
    """A first batch in which every choice stands twice in every layer of every block, as far as `cells` allow."""
    chosen: dict[Subnet, None] = {}
    by_choices = {(s.block, s.choices): s for s in cells}
    for block, spec in enumerate(space.blocks, start=1):
        for _ in range(2):
            columns = [rng.sample(space.choices, len(space.choices)) for _ in range(spec.layers)]
            for choices in zip(*columns, strict=True):
                if (block, choices) in by_choices:
                    chosen[by_choices[block, choices]] = None
    return list(chosen)


@dataclass(frozen=True, eq=False)
class Chances:
    """What the table may be, drawn from the posterior.

    Attributes:
        on_fronts: (n, blocks) cells of architectures on drawn fronts; anywhere: of random ones.
        expected_loss: share of the hypervolume that choosing by the mean table is expected to lose.
        expected_tau: tau-b between the mean table's and the drawn tables' sums over random architectures, on average.
    """

    on_fronts: NDArray[np.int64]
    anywhere: NDArray[np.int64]
    expected_loss: float
    expected_tau: float

    @classmethod
    def of(cls, model: BlockModel, nsr: Table, plan: Plan, rng: np.random.Generator) -> Chances:
        noise = nsr.column(model.cells)
        blocks = np.array([s.block for s in model.cells])
        of_block = [np.flatnonzero(blocks == b) for b in np.unique(blocks)]
        by_mean = _front(model, noise, model.mean_us, of_block)
        chosen = cell_rows(by_mean, model)
        anywhere = np.column_stack([rng.choice(rows, ANYWHERE) for rows in of_block])
        reference = 1.02 * by_mean.costs.max(axis=0)
        fronts, losses, taus = [chosen], [], []
        for latency in np.maximum(model.samples(plan.draws, rng), 1.0):
            drawn = _front(model, noise, latency, of_block)
            fronts.append(cell_rows(drawn, model))
            ours = np.column_stack([noise[chosen].sum(axis=1), latency[chosen].sum(axis=1)])
            best = hypervolume(drawn.costs, reference)
            losses.append(1 - hypervolume(ours, reference) / best if best > 0 else 0.0)
            taus.append(tau_b(model.mean_us[anywhere].sum(axis=1), latency[anywhere].sum(axis=1)))
        on_fronts = np.concatenate(fronts)
        if len(on_fronts) > MOST_ON_FRONTS:
            on_fronts = on_fronts[rng.choice(len(on_fronts), MOST_ON_FRONTS, replace=False)]
        return cls(on_fronts, anywhere, float(np.mean(losses)), float(np.mean(taus)))

    def stable(self, plan: Plan) -> bool:
        return self.expected_loss < plan.tolerance and self.expected_tau > 1 - plan.tau_tolerance

    def weighted(self, everywhere: float) -> tuple[NDArray[np.int64], Vector]:
        """(n, blocks) the architectures that matter, and how much each does, (n,), 1 together."""
        shares = (1 - everywhere) / len(self.on_fronts), everywhere / len(self.anywhere)
        weights = np.repeat(shares, [len(self.on_fronts), len(self.anywhere)])
        return np.concatenate([self.on_fronts, self.anywhere]), weights


def _front(model: BlockModel, nsr: Vector, latency: Vector, of_block: Sequence[NDArray[np.int64]]) -> Front:
    subnets = tuple(tuple(model.cells[i] for i in rows.tolist()) for rows in of_block)
    costs = tuple(np.column_stack([nsr[rows], latency[rows]]) for rows in of_block)
    return front(Candidates(("nsr", "latency"), subnets, costs))


def cell_rows(of: Front, model: BlockModel) -> NDArray[np.int64]:
    """(architectures, blocks) which of the model's cells a front's architectures are made of."""
    columns = [
        np.array([model.index[subnet] for subnet in block])[of.choices[:, b]]
        for b, block in enumerate(of.pruned.subnets)
    ]
    return np.column_stack(columns)


def _choose(
    model: BlockModel, chances: Chances, bench: Bench, plan: Plan, whole: _WholeModels
) -> tuple[list[Subnet], list[Architecture]]:
    """The next batch, one after the other: variances do not depend on what will be measured."""
    x = model.directions
    covariance = model.weights
    rows, weights = chances.weighted(plan.everywhere)
    targets = x[rows].sum(axis=1)  # (architectures, features)
    relevance = np.bincount(rows.ravel(), np.repeat(weights, rows.shape[1]), len(x))
    size = np.maximum(model.mean_us, 1.0)
    error2 = (LEAST_NOISE * size) ** 2
    noise = model.own_us2 + error2
    own_gain = relevance * model.own_us2**2 / noise
    took_s = np.array([bench.seconds(us) for us in size])
    free = ~model.measured
    cross = targets @ covariance  # (architectures, features)
    along = x @ covariance  # (cells, features)
    blocks: list[Subnet] = []
    models: list[Architecture] = []
    limit = min(plan.batch, (plan.most_blocks or len(x)) - int(model.measured.sum()))
    for _ in range(limit):
        spread = np.einsum("ij,ij->i", along, x) + noise
        gain = weights @ (cross @ x.T) ** 2 / spread + own_gain
        rate = np.where(free, gain / took_s, -1.0)
        best = int(np.argmax(rate))
        if whole.best_rate() > rate[best]:
            models.append(whole.take())
            continue
        if rate[best] < 0:
            break
        blocks.append(model.cells[best])
        free[best] = False
        step = along[best] / np.sqrt(spread[best])  # (features,): covariance loses its outer product
        cross = cross - np.outer(targets @ step, step)
        along = along - np.outer(x @ step, step)
    return blocks, models


@dataclass(eq=False)
class _WholeModels:
    """Candidates for a measurement that tells what blocks bring in context, which no block alone can tell."""

    architectures: list[Architecture]
    toward: Matrix  # (targets, candidates) covariance of what context adds, targets being on drawn fronts
    among: Matrix  # (candidates, candidates)
    noise: Vector
    took_s: Vector

    @classmethod
    def of(cls, context: Feedback, chances: Chances, model: BlockModel, bench: Bench, known: Known) -> _WholeModels:
        rows = np.unique(chances.on_fronts, axis=0)
        rows = rows[:: max(1, len(rows) // MOST_WHOLE)]
        targets = [Architecture(tuple(model.cells[i] for i in row)) for row in rows.tolist()]
        done = {sample.architecture for sample in known.models}
        architectures = [a for a in bench.measurable(targets) if a not in done]
        if not architectures:
            return cls([], np.zeros((len(targets), 0)), np.zeros((0, 0)), np.zeros(0), np.zeros(0))
        together, own = context.spread_us2([*targets, *architectures])
        n = len(targets)
        of_blocks = np.array([sum(model.own_us2[model.index[s]] for s in a.subnets) for a in architectures])
        took_s = np.array([bench.seconds(us) for us in context.predict_us(architectures)])
        return cls(architectures, together[:n, n:], together[n:, n:], own[n:] + of_blocks, took_s)

    def _rates(self) -> Vector:
        rates: Vector = (self.toward**2).mean(axis=0) / (np.diag(self.among) + self.noise) / self.took_s
        return rates

    def best_rate(self) -> float:
        return float(self._rates().max()) if self.architectures else -1.0

    def take(self) -> Architecture:
        best = int(np.argmax(self._rates()))
        root = np.sqrt(self.among[best, best] + self.noise[best])
        step, aside = self.among[best] / root, self.toward[:, best] / root
        keep = np.arange(len(self.architectures)) != best
        self.toward = (self.toward - np.outer(aside, step))[:, keep]
        self.among = (self.among - np.outer(step, step))[keep][:, keep]
        self.noise, self.took_s = self.noise[keep], self.took_s[keep]
        return self.architectures.pop(best)
