"""Active measuring against random choice and against measuring everything, on a recorded table: no board needed.

All three end with the same kind of table (`deploy.latency.predictor`), corrected by full networks of the record's pool.
They are evaluated on its held-out networks, and by the Pareto front of the table, at the latencies of the table that
measured everything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from deploy.latency.active import Plan, measure_actively
from deploy.latency.agreement import MeasuredNetwork, tau_b
from deploy.latency.context_model import BlockLatencies, ContextModel
from deploy.latency.correction import mean_error
from deploy.latency.features import BlockFeatures, Vector, block_features
from deploy.latency.latency_source import Observations
from deploy.latency.predictor import BlockModel, fit
from deploy.studies.latency.record import Recorded
from deploy.studies.latency.replay_record import ReplayOutcome
from hil.errors import UsageError
from nas.estimate import Estimate
from nas.search.candidates import candidates
from nas.search.front import Front, front
from nas.search.hypervolume import hypervolume
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table


@dataclass(frozen=True, eq=False)
class RecordedSource:
    """A recording as the `LatencySource` of active measuring; its measurements take no time."""

    recorded: Recorded

    @property
    def space(self) -> SearchSpace:
        return self.recorded.space

    @cached_property
    def features(self) -> BlockFeatures:
        return block_features(self.space, self.recorded.size)

    @cached_property
    def nsr(self) -> Table:
        entries = {Subnet.parse(r.name): Estimate.exact(r.nsr) for r in self.recorded.rows_of("block")}
        return Table("nsr", "ratio", entries, {"space": self.space.digest})

    @cached_property
    def every_block(self) -> Mapping[Subnet, Estimate]:
        return {Subnet.parse(r.name): r.estimate for r in self.recorded.rows_of("block")}

    @cached_property
    def _block_seconds(self) -> Mapping[Subnet, float]:
        return {Subnet.parse(r.name): r.board_s for r in self.recorded.rows_of("block")}

    @cached_property
    def pool(self) -> Mapping[Architecture, tuple[MeasuredNetwork, float]]:
        return {Architecture.parse(r.name): (r.network, r.board_s) for r in self.recorded.rows_of("pool", "front")}

    @cached_property
    def held_out(self) -> tuple[MeasuredNetwork, ...]:
        return tuple(r.network for r in self.recorded.rows_of("held-out"))

    def blocks(self, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, Estimate, float]]:
        for subnet in subnets:
            yield subnet, self.every_block[subnet], self._block_seconds[subnet]

    def networks(self, architectures: Sequence[Architecture]) -> Iterator[tuple[MeasuredNetwork, float]]:
        for architecture in architectures:
            yield self.pool[architecture]

    def measurable(self, architectures: Sequence[Architecture]) -> list[Architecture]:  # noqa: ARG002
        """Those of the pool, whatever is wanted: only what was recorded can be had."""
        return list(self.pool)

    @cached_property
    def _seconds_of_us(self) -> tuple[Vector, Vector]:
        rows = sorted(self.recorded.rows, key=lambda r: r.median_us)
        return np.array([r.median_us for r in rows]), np.array([r.board_s for r in rows])

    def seconds(self, latency_us: float) -> float:
        us, seconds = self._seconds_of_us
        return float(np.interp(latency_us, us, seconds))


@dataclass(frozen=True, eq=False)
class TableEvaluator:
    """Evaluates every method on the same held-out networks and against the same front.

    Attributes:
        source: with the held-out networks.
        full: fitted to all blocks.
    """

    source: RecordedSource
    full: BlockModel

    @classmethod
    def of(cls, source: RecordedSource) -> TableEvaluator:
        return cls(source, fit(source.features, source.every_block))

    def outcome(self, method: str, seed: int, model: BlockModel, observed: Observations, ended: str) -> ReplayOutcome:
        architectures = [n.architecture for n in self.source.held_out]
        y = np.array([n.measured_us for n in self.source.held_out])
        blocks = BlockLatencies.of_model(model)
        predicted = ContextModel.fitted(self.source.space, blocks, observed.networks).predict_us(architectures)
        return ReplayOutcome(
            method,
            seed,
            len(observed.blocks),
            len(observed.networks),
            observed.seconds,
            tau_b(blocks.sums(architectures), y),
            tau_b(predicted, y),
            mean_error(predicted, y),
            self.hypervolume_share(model),
            ended,
        )

    @cached_property
    def truth(self) -> Table:
        return table_of(self.full, self.source.space)

    @cached_property
    def best(self) -> Front:
        return front(candidates(self.source.space, [self.source.nsr, self.truth]))

    def hypervolume_share(self, model: BlockModel) -> float:
        """Hypervolume of the front by `model` over that of the full table, both at the full table's latencies."""
        space, nsr = self.source.space, self.source.nsr
        by_model = front(candidates(space, [nsr, table_of(model, space)]))
        real = np.array([[nsr.total(a), self.truth.total(a)] for a in by_model.architectures])
        reference = 1.02 * self.best.costs.max(axis=0)
        return hypervolume(real, reference) / hypervolume(self.best.costs, reference)


def table_of(model: BlockModel, space: SearchSpace) -> Table:
    entries = {s: Estimate.exact(float(us)) for s, us in zip(model.cells, model.mean_us, strict=True)}
    return Table("latency", "us", entries, {"space": space.digest})


def compete(recorded: Recorded, seeds: int, plan: Plan) -> Iterator[ReplayOutcome]:
    """For each seed, after each batch: active measuring, and random choice of as many blocks and full networks.

    Measuring everything comes first, once. Raises `UsageError` for a record without held-out networks or a pool.
    """
    source = RecordedSource(recorded)
    if len(source.held_out) < 3 or not source.pool:
        raise UsageError("the record has no held-out models, or no pool: record with both")
    evaluator = TableEvaluator.of(source)
    seconds = sum(r.board_s for r in recorded.rows_of("block", "pool", "front"))
    everything = Observations(source.every_block, tuple(n for n, _ in source.pool.values()), seconds)
    yield evaluator.outcome("everything", 0, evaluator.full, everything, "every block is measured")
    for seed in range(seeds):
        plan_of_seed = replace(plan, seed=seed)
        for step in measure_actively(source.space, source.features, source.nsr, source, plan_of_seed):
            yield evaluator.outcome("active", seed, step.model, step.observed, step.ended)
            observed = at_random(source, len(step.observed.blocks), len(step.observed.networks), seed)
            model = fit(source.features, observed.blocks, seed=seed)
            yield evaluator.outcome("random", seed, model, observed, step.ended and "as many as active")


def at_random(source: RecordedSource, blocks: int, networks: int, seed: int) -> Observations:
    """The first ones of two orders that depend on the seed alone: a larger number includes the smaller one's."""
    rng = random.Random(seed)
    subnets = rng.sample(sorted(source.every_block), len(source.every_block))[:blocks]
    chosen = [source.pool[a] for a in rng.sample(sorted(source.pool, key=str), len(source.pool))[:networks]]
    measured = list(source.blocks(subnets))
    seconds = sum(s for _, _, s in measured) + sum(s for _, s in chosen)
    return Observations({s: estimate for s, estimate, _ in measured}, tuple(n for n, _ in chosen), seconds)
