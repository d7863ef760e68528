"""A question to cost tables: the k best models within budgets, the whole Pareto front, a proof that both are exact.

Each scheme is searched by itself and compared as full models, and so are the models that LCPAQ refined.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from deploy.search.cost_tables import ON_CPU
from deploy.search.refined import NONE_REFINED, Refined
from hil.errors import CheckFailed, UsageError
from nas.search.candidates import Candidates, Limits, within_count
from nas.search.front import Front, front
from nas.search.prove import Proof, prove
from nas.search.union import CostTables, Point, k_best_of_schemes, limits_of_schemes, union_front
from nas.space import SearchSpace

QUANTITIES = ("nsr", "size", "latency")
UNIT = {"size": "bits", "latency": "us"}


@dataclass(frozen=True)
class Question:
    """What is asked of cost tables.

    Attributes:
        budgets: by quantity the most that a model may cost, in the tables' units.
        k: how many models, best first.
        objectives: the first is minimised; none: all quantities that there are tables of.
        no_cpu_fallback: only subnets that the delegate took whole.
        prove: hold the answer to brute force on random sub-spaces.
    """

    budgets: Limits = field(default_factory=dict)
    k: int = 1
    objectives: tuple[str, ...] = ()
    no_cpu_fallback: bool = False
    prove: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"--k {self.k}: ask for at least one")


@dataclass(frozen=True)
class RankedModel:
    """A model with its costs, by quantity and unit as `key_of` names them; `scheme` where there are several."""

    subnet: str
    costs: Mapping[str, float]
    scheme: str | None = None

    def to_json(self) -> dict[str, str | float]:
        scheme = {} if self.scheme is None else {"scheme": self.scheme}
        return {"subnet": self.subnet, **self.costs, **scheme}


@dataclass(frozen=True)
class DeviceRecord:
    """One of several devices.

    Attributes:
        table: the file of its latencies.
        outside_us: what a model takes there outside the blocks, microseconds.
        budgets: those that concern this device, by quantity and unit.
        alone: the best model for this device only.
        sharing_costs_nsr: how much less NSR that has than the one model for all devices.
    """

    table: str
    outside_us: float
    budgets: Mapping[str, float]
    alone: RankedModel
    sharing_costs_nsr: float

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "budgets": dict(self.budgets), "alone": self.alone.to_json()}


@dataclass(frozen=True)
class AnswerRecord:
    """What `hilnas search --json` prints.

    Attributes:
        scope: what costs are of: full models, or the blocks alone.
        space: its name.
        objectives: quantities; the first was minimised.
        architectures: how many there are to choose from, all schemes together.
        front: how many of them are on the Pareto front.
        seconds: that making the candidates and their front took.
        budgets: by quantity and unit.
        selected: the best models within the budgets, best first.
        proof: if it was asked for.
        stale: models whose refinement is out of date, which are left out.
        devices: by name, if several were asked about.
    """

    scope: str
    space: str
    objectives: tuple[str, ...]
    architectures: int
    front: int
    seconds: float
    budgets: Mapping[str, float]
    selected: tuple[RankedModel, ...]
    proof: Proof | None = None
    stale: tuple[str, ...] = ()
    devices: Mapping[str, DeviceRecord] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Without what was not asked for."""
        record: dict[str, Any] = {**vars(self), "selected": [model.to_json() for model in self.selected]}
        record["devices"] = {name: device.to_json() for name, device in self.devices.items()}
        record["proof"] = asdict(self.proof) if self.proof else None
        return {name: value for name, value in record.items() if value or name not in ("proof", "stale", "devices")}

    def check_proof(self) -> None:
        """`CheckFailed` if a proof was asked for and does not hold."""
        if self.proof and not self.proof.holds:
            raise CheckFailed(f"the search is not brute force's: {self.proof.difference} differs; report this")


@dataclass(frozen=True, eq=False)
class SearchAnswer:
    """What was searched, scheme by scheme, the `selected` models in order, and the record of it all."""

    schemes: Sequence[CostTables]
    candidates: Sequence[Candidates]
    fronts: Sequence[Front]
    selected: Sequence[Point]
    record: AnswerRecord

    def best(self, budgets: Limits) -> Point:
        """The best model within other budgets."""
        return _k_best(self.schemes, self.candidates, self.fronts, Question(budgets))[0]

    def union(self) -> list[RankedModel]:
        """The Pareto front over all schemes."""
        return [self.model(point) for point in union_front(self.schemes, self.fronts)]

    def model(self, point: Point) -> RankedModel:
        return _model(point, self.candidates[0].objectives, self.schemes)


def answer(
    question: Question, space: SearchSpace, schemes: Sequence[CostTables], refined: Refined = NONE_REFINED
) -> SearchAnswer:
    """The Pareto front and the k best models over `schemes`, the main one first, and over `refined` models.

    Raises `UsageError` or `ConfigError` for a question that means nothing over these tables, and `ConfigError` saying
    the smallest model where none fits the budgets.
    """
    searched = _delegated(space, schemes, refined) if question.no_cpu_fallback else [*schemes, *refined.models]
    objectives = objectives_of(question.objectives, schemes[0])
    started = time.perf_counter()
    candidates = [tables.candidates(space, objectives) for tables in searched]
    fronts = [front(each) for each in candidates]
    seconds = time.perf_counter() - started
    selected = _k_best(searched, candidates, fronts, question)
    record = AnswerRecord(
        scope="full models" if schemes[0].teacher else "the blocks alone",
        space=space.name,
        objectives=objectives,
        architectures=sum(each.count for each in candidates),
        front=len(fronts[0]) if len(searched) == 1 else len(union_front(searched, fronts)),
        seconds=round(seconds, 4),
        budgets={key_of(name): value for name, value in question.budgets.items()},
        selected=tuple(_model(point, objectives, searched) for point in selected),
        proof=_proof(candidates, fronts, question.k) if question.prove else None,
        stale=refined.stale,
    )
    return SearchAnswer(searched, candidates, fronts, selected, record)


def key_of(quantity: str) -> str:
    """A quantity's name in records, with its unit: latency_us, of one of several devices latency_us@DEVICE."""
    plain, at, device = quantity.partition("@")
    return f"{plain}_{UNIT[plain]}{at}{device}" if plain in UNIT else quantity


def _k_best(
    schemes: Sequence[CostTables], candidates: Sequence[Candidates], fronts: Sequence[Front], question: Question
) -> list[Point]:
    limits = limits_of_schemes(schemes, fronts, question.budgets)
    return k_best_of_schemes(schemes, candidates, limits, question.k)


def _model(point: Point, objectives: Sequence[str], schemes: Sequence[CostTables]) -> RankedModel:
    costs = dict(zip(map(key_of, objectives), point.costs, strict=True))
    return RankedModel(str(point.architecture), costs, point.scheme if len(schemes) > 1 else None)


def objectives_of(asked: Sequence[str], main: CostTables) -> tuple[str, ...]:
    """Those asked for, or all that there are tables of; `UsageError` for one that there is no table of."""
    known = [name for name in main.tables if name.partition("@")[0] in QUANTITIES]
    known.sort(key=lambda name: QUANTITIES.index(name.partition("@")[0]))
    for name in asked:
        if name not in known:
            raise UsageError(f"--objectives: no table of '{name}'; there are {', '.join(known)}")
    return tuple(asked) or tuple(known)


def _delegated(space: SearchSpace, schemes: Sequence[CostTables], refined: Refined) -> list[CostTables]:
    """Only subnets that the delegate took whole; without the refined models that have another."""
    for tables in schemes:
        if ON_CPU not in tables.tables:
            raise UsageError(
                f"--no-cpu-fallback: no table of what stays on the CPU{f' ({tables.name})' if tables.name else ''}; "
                "profile on a board with a delegate, or it is not known"
            )
        tables.tables[ON_CPU].check(space)
    whole = [replace(tables, allowed=within_count(0.0, tables.tables[ON_CPU])) for tables in schemes]
    on_cpu = schemes[0].tables[ON_CPU]
    return whole + [
        tables
        for tables in refined.models
        if not any(on_cpu[s] for s in space.all_subnets() if tables.allowed and tables.allowed(s))
    ]


def _proof(candidates: Sequence[Candidates], fronts: Sequence[Front], k: int) -> Proof:
    """Of every scheme, added up; their union is a sort."""
    proofs = [prove(each, whole, random.Random(0), k) for each, whole in zip(candidates, fronts, strict=True)]
    return Proof(
        sum(proof.sub_spaces for proof in proofs),
        sum(proof.architectures for proof in proofs),
        sum(proof.queries for proof in proofs),
        sum(proof.sampled for proof in proofs),
        next((proof.difference for proof in proofs if proof.difference), None),
    )
