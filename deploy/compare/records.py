"""What a comparison leaves in RUN/compare/: BUDGET.json, retrained/KEY.json, and a journal for each supernet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records import Record, SpaceSummary
from deploy.run.records.base import OMITTED
from deploy.run.settings.deployment import Budget
from deploy.run.settings.search import Compare
from deploy.run.settings.training import Data, Retrain
from nas.estimate import Estimate
from nas.settings import STRICT
from nas.tasks.confusion import Confusion


@dataclass(frozen=True)
class Spent:
    """Seconds of work; the CPU's over all threads, None where the run's stage did not count them."""

    wall_s: float = 0.0
    cpu_s: float | None = 0.0
    __pydantic_config__ = STRICT

    def __add__(self, other: Spent) -> Spent:
        cpu = None if self.cpu_s is None or other.cpu_s is None else self.cpu_s + other.cpu_s
        return Spent(self.wall_s + other.wall_s, cpu)


@dataclass(frozen=True)
class ScoredArchitecture:
    """An architecture with its score in a supernet, in percent, and what evaluating it took: a line of a journal."""

    subnet: str
    score: float
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class RetrainedRecord(Record):
    """An architecture that was retrained, with its validation scores in percent: in float and as it is deployed.

    Attributes:
        confusions: of each validation image by the deployed integers, which `int8` is of.
    """

    subnet: str
    seed: int
    fp32: float
    int8: float
    confusions: tuple[Confusion, ...]

    FILE: ClassVar[str] = "retrained/KEY.json"
    COMMAND: ClassVar[str] = "compare-search"
    SCHEMA: ClassVar[int] = 3


@dataclass(frozen=True)
class TeacherCosts:
    """The INT8 teacher: its score in percent, and what budgets are shares of."""

    int8: float
    size_bits: int
    latency_us: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MachineRecord:
    """Where the comparison was computed; `device`: of the training."""

    name: str
    cores: int | None
    threads: int
    device: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MethodRecord:
    """A method's winner; of `random_blocks` one of several.

    Attributes:
        evaluated: architectures that the method evaluated; 0: it reads tables.
        complete: False where the search was cut off and there may be a better one.
        fitness: the winner's when it was selected, in percent; None of methods that read tables.
        nsr: sum over its blocks; predicted_us: of the full model; None of what is not in the space.
        size_bits: of the full model.
        int8, fp32: validation scores in percent, of each retraining.
        spent: by step: teacher, train, tables, search, retrain, as far as the method has it.
        latency_share: of the teacher's, where it was measured because no table predicts it.
        against: by method, `int8` less that of its winner, in points: of the teacher trained on and the block-wise
            search, as far as they are compared.
        retrained: the keys of its retrainings' records; none in a record of an earlier version.
    """

    method: str
    subnet: str
    nsr: float | None
    evaluated: int
    complete: bool
    fitness: float | None
    size_bits: float
    predicted_us: float | None
    int8: tuple[float, ...]
    fp32: tuple[float, ...]
    spent: Mapping[str, Spent]
    latency_share: Estimate | None = None
    against: Mapping[str, Estimate] = field(default_factory=dict)
    retrained: tuple[str, ...] = field(default=(), metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ComparisonRecord(Record):
    """Methods of search compared under one budget.

    Attributes:
        experiment: its name.
        metric: of all scores.
        settings: with the supernets' training as it was.
        retrain: of every winner.
        board_seconds: what the latency table took of the board, for all methods.
        methods: in the order in which they were asked for; none of a control of which nothing is within the budget.
    """

    experiment: str
    metric: str
    space: SpaceSummary
    data: Data
    budget: Budget
    settings: Compare
    retrain: Retrain
    teacher: TeacherCosts
    board_seconds: float
    machine: MachineRecord
    methods: tuple[MethodRecord, ...]

    FILE: ClassVar[str] = "BUDGET.json"
    COMMAND: ClassVar[str] = "compare-search"
    SCHEMA: ClassVar[int] = 2
