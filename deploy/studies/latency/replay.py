"""Active measuring against random choice and against measuring everything, on a recorded table: no board needed.

All three end as the same kind of table (`deploy.latency.predictor`), corrected by whole models of the record's pool. They
are judged on its held-out models, and by the front that the table finds, at the latencies of the table that measured
everything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from rich.table import Table as RichTable

from deploy.latency.active import Known, Plan, measure_actively
from deploy.latency.agreement import Sample, comparison, tau_b
from deploy.latency.correction import Blocks, Feedback, mean_error
from deploy.latency.features import Features, Vector, block_features
from deploy.latency.predictor import Z95, BlockModel, Measured, fit
from deploy.run.records import plain
from deploy.studies.latency.record import Recorded, Row
from hil.errors import UsageError
from nas.search.candidates import candidates
from nas.search.front import Front, front
from nas.search.hypervolume import hypervolume
from nas.settings import build
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Entry, Table


@dataclass(frozen=True, eq=False)
class World:
    """A record, ready to be asked; it is a `Bench` whose answers take no time."""

    recorded: Recorded

    @cached_property
    def space(self) -> SearchSpace:
        return build(SearchSpace, self.recorded.space, "the record's space")

    @cached_property
    def features(self) -> Features:
        return block_features(self.space, self.recorded.size)

    @cached_property
    def nsr(self) -> Table:
        entries = {Subnet.parse(r.name): Entry.exact(r.nsr) for r in self.recorded.of("block")}
        return Table("nsr", "ratio", entries, {"space": self.space.digest})

    @cached_property
    def every_block(self) -> Mapping[Subnet, Measured]:
        return {Subnet.parse(r.name): _measured(r) for r in self.recorded.of("block")}

    @cached_property
    def _block_seconds(self) -> Mapping[Subnet, float]:
        return {Subnet.parse(r.name): r.board_s for r in self.recorded.of("block")}

    @cached_property
    def pool(self) -> Mapping[Architecture, tuple[Sample, float]]:
        return {Architecture.parse(r.name): (_sample(r), r.board_s) for r in self.recorded.of("pool", "front")}

    @cached_property
    def held_out(self) -> tuple[Sample, ...]:
        return tuple(_sample(r) for r in self.recorded.of("held-out"))

    def blocks(self, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, Measured, float]]:
        for subnet in subnets:
            yield subnet, self.every_block[subnet], self._block_seconds[subnet]

    def models(self, architectures: Sequence[Architecture]) -> Iterator[tuple[Sample, float]]:
        for architecture in architectures:
            yield self.pool[architecture]

    def measurable(self, architectures: Sequence[Architecture]) -> list[Architecture]:  # noqa: ARG002
        """Whatever is asked for, only what was recorded can be had."""
        return list(self.pool)

    @cached_property
    def _seconds_of_us(self) -> tuple[Vector, Vector]:
        rows = sorted(self.recorded.rows, key=lambda r: r.median_us)
        return np.array([r.median_us for r in rows]), np.array([r.board_s for r in rows])

    def seconds(self, latency_us: float) -> float:
        us, seconds = self._seconds_of_us
        return float(np.interp(latency_us, us, seconds))


def _measured(row: Row) -> Measured:
    return Measured(row.median_us, max((row.high_us - row.low_us) / (2 * Z95), 0.5))


def _sample(row: Row) -> Sample:
    return Sample(Architecture.parse(row.name), float("nan"), row.median_us, (row.first_half_us, row.second_half_us))


@dataclass(frozen=True)
class Outcome:
    """How good a way of measuring was.

    Attributes:
        tau_b: of the table's sums and the held-out models; tau_b_corrected: with feedback from `models` whole models.
        error_percent: mean absolute, of the corrected predictions.
        hypervolume: of the front that the table finds, at the latencies of the full table; a share of the full table's.
        ended: why no more was measured; empty: more was.
    """

    method: str
    seed: int
    blocks: int
    models: int
    board_s: float
    tau_b: float
    tau_b_corrected: float
    error_percent: float
    hypervolume: float
    ended: str


@dataclass(frozen=True, eq=False)
class Judge:
    """Holds every method to the same held-out models and to the front of the table that measured everything."""

    world: World
    full: BlockModel

    @classmethod
    def of(cls, world: World) -> Judge:
        return cls(world, fit(world.features, world.every_block))

    def outcome(self, method: str, seed: int, model: BlockModel, known: Known, ended: str) -> Outcome:
        world, held_out = self.world, self.world.held_out
        architectures = [s.architecture for s in held_out]
        y = np.array([s.measured_us for s in held_out])
        blocks = Blocks.of_model(model)
        feedback = Feedback.fitted(world.space, blocks, known.models)
        predicted = feedback.predict_us(architectures)
        return Outcome(
            method,
            seed,
            len(known.blocks),
            len(known.models),
            known.seconds,
            tau_b(blocks.sums(architectures), y),
            tau_b(predicted, y),
            mean_error(predicted, y),
            self.hypervolume_share(model),
            ended,
        )

    @cached_property
    def truth(self) -> Table:
        return table_of(self.full, self.world.space)

    @cached_property
    def best(self) -> Front:
        return front(candidates(self.world.space, [self.world.nsr, self.truth]))

    def hypervolume_share(self, model: BlockModel) -> float:
        """Of the front by `model`, both at the full table's latencies."""
        found = front(candidates(self.world.space, [self.world.nsr, table_of(model, self.world.space)]))
        real = np.array([[self.world.nsr.total(a), self.truth.total(a)] for a in found.architectures])
        reference = 1.02 * self.best.costs.max(axis=0)
        return hypervolume(real, reference) / hypervolume(self.best.costs, reference)


def table_of(model: BlockModel, space: SearchSpace) -> Table:
    entries = {s: Entry.exact(float(us)) for s, us in zip(model.cells, model.mean_us, strict=True)}
    return Table("latency", "us", entries, {"space": space.digest})


def compete(recorded: Recorded, seeds: int, plan: Plan) -> Iterator[Outcome]:
    """For each seed, after each batch: active measuring, and random choice of as many blocks and whole models.

    Measuring everything comes first, once. Raises `UsageError` for a record without held-out models or a pool.
    """
    world = World(recorded)
    if len(world.held_out) < 3 or not world.pool:
        raise UsageError("the record has no held-out models, or no pool: record with both")
    judge = Judge.of(world)
    everything = Known(world.every_block, tuple(s for s, _ in world.pool.values()), _seconds(world))
    yield judge.outcome("everything", 0, judge.full, everything, "every block is measured")
    for seed in range(seeds):
        of_seed = replace(plan, seed=seed)
        for step in measure_actively(world.space, world.features, world.nsr, world, of_seed):
            yield judge.outcome("active", seed, step.model, step.known, step.ended)
            known = at_random(world, len(step.known.blocks), len(step.known.models), seed)
            drawn = fit(world.features, known.blocks, seed=seed)
            yield judge.outcome("random", seed, drawn, known, step.ended and "as many as active")


def at_random(world: World, blocks: int, models: int, seed: int) -> Known:
    """The first ones of two orders that depend on the seed alone: more of them keep those before."""
    rng = random.Random(seed)
    subnets = rng.sample(sorted(world.every_block), len(world.every_block))[:blocks]
    chosen = [world.pool[a] for a in rng.sample(sorted(world.pool, key=str), len(world.pool))[:models]]
    found = list(world.blocks(subnets))
    seconds = sum(s for _, _, s in found) + sum(s for _, s in chosen)
    return Known({s: m for s, m, _ in found}, tuple(s for s, _ in chosen), seconds)


def _seconds(world: World) -> float:
    return sum(r.board_s for r in world.recorded.of("block", "pool", "front"))


def said(recorded: Recorded, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All outcomes, and for each method what it came to: means, with the ends of the middle 90 % over seeds."""
    halves = [(r.first_half_us, r.second_half_us) for r in recorded.of("held-out")]
    methods = {}
    for name in dict.fromkeys(o.method for o in outcomes):
        of = [o for o in outcomes if o.method == name and o.ended]
        methods[name] = {field: _spread([getattr(o, field) for o in of]) for field in FIGURES}
    return {
        "space": recorded.space["name"],
        "size": list(recorded.size),
        "scheme": recorded.scheme,
        "conditions": recorded.conditions,
        "blocks": len(recorded.of("block")),
        "held_out": len(halves),
        "ceiling_tau_b": tau_b(np.array([a for a, _ in halves]), np.array([b for _, b in halves])),
        "seeds": len({o.seed for o in outcomes}),
        "agreement": judged(recorded),
        "methods": methods,
        "outcomes": [asdict(o) for o in outcomes],
    }


def judged(recorded: Recorded) -> dict[str, Any]:
    """The whole table against the held-out models, as `hilnas agree` judges one.

    `as_measured`: sums of what was measured; `told`: of the posterior that all of it gives together; `with_feedback`:
    corrected by the pool's whole models.
    """
    world = World(recorded)
    full = Judge.of(world).full
    architectures = [s.architecture for s in world.held_out]
    pool = [s for s, _ in world.pool.values()]
    ways = {
        "as_measured": [sum(world.every_block[s].value_us for s in a.subnets) for a in architectures],
        "told": Blocks.of_model(full).sums(architectures).tolist(),
        "with_feedback": Feedback.fitted(world.space, Blocks.of_model(full), pool).predict_us(architectures).tolist(),
    }
    found = {}
    for way, predicted in ways.items():
        samples = [replace(s, additive_us=us) for s, us in zip(world.held_out, predicted, strict=True)]
        found[way] = plain(comparison(samples, world.nsr, 0, 10))
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, high = np.quantile(values, [0.05, 0.95])
    return {"mean": float(np.mean(values)), "p5": float(low), "p95": float(high)}


FIGURES = ("blocks", "models", "board_s", "tau_b", "tau_b_corrected", "error_percent", "hypervolume")


def table_of_outcomes(found: Mapping[str, Any]) -> RichTable:
    """A row a method: the mean over seeds, with the middle 90 % where there are several."""
    table = RichTable(title=f"{found['held_out']} held-out models, noise ceiling {found['ceiling_tau_b']:.4f}")
    columns = ("method", "blocks", "models", "board s", "tau-b", "with feedback", "error %", "hypervolume")
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    digits = {"blocks": 0, "models": 0, "board_s": 0, "error_percent": 2}
    for name, of in found["methods"].items():
        cells = []
        for field in FIGURES:
            n, f = digits.get(field, 4), of[field]
            spread = f" ({f['p5']:.{n}f} - {f['p95']:.{n}f})" if f["p5"] < f["p95"] else ""
            cells.append(f"{f['mean']:.{n}f}{spread}")
        table.add_row(name, *cells)
    return table


def agreed(judged: Mapping[str, Any]) -> str:
    """A comparison in a line."""
    a, worst = judged["agreement"], judged["regret"]["worst_percent"]
    low, high = a["ci95"]
    return (
        f"tau-b {a['tau_b']:.4f} [{low:.4f}, {high:.4f}], Spearman {a['spearman']:.4f}, mean error "
        f"{a['error_percent']:.2f} % after a constant of {a['offset_us']:.0f} us, regret at most {worst:.1f} %"
    )
