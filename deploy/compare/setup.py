"""What methods of search are compared on: one space, one budget, one set of tables, one data set."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property

from deploy.compile.artifact import bits_outside_blocks
from deploy.formats.digest import digest
from deploy.run.config import Budget
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.keys import settings_of
from deploy.run.quantizing import quantize_network
from deploy.run.records import AgreementRecord
from nas.quant.integer_graph import IntegerGraph
from nas.search.budgets import limits_within
from nas.search.candidates import Candidates, candidates
from nas.search.front import front
from nas.sharing.affordable import Affordable
from nas.space import Architecture
from nas.table import Table


@dataclass(frozen=True)
class Spent:
    """Seconds of work; the CPU's over all threads, None where the run's stage did not count them."""

    wall_s: float = 0.0
    cpu_s: float | None = 0.0

    def __add__(self, other: Spent) -> Spent:
        cpu = None if self.cpu_s is None or other.cpu_s is None else self.cpu_s + other.cpu_s
        return Spent(self.wall_s + other.wall_s, cpu)


def spent_in(run: Run, name: str) -> Spent:
    """What a stage of a run took, over all interruptions."""
    return Spent(run.stages[name].seconds, run.stages[name].cpu_seconds)


@dataclass(frozen=True)
class Found:
    """A method's winner.

    Attributes:
        judged: architectures evaluated on the way (0: it reads tables); fitness: the winner's then, in percent.
        complete: False where the search was cut off and there may be a better one.
    """

    architecture: Architecture
    spent: Mapping[str, Spent]
    judged: int = 0
    fitness: float | None = None
    complete: bool = True


Finding = Generator[Progress, None, Found]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One budget of one run.

    Attributes:
        run: of the comparison, in the experiment's folder.
        limits: the budget in the tables' units, less what stem and head take.
        around: what those take: bits, and microseconds.
        of: every subnet with its NSR and what is limited.
    """

    context: Context
    run: Run
    budget: Budget
    teacher: IntegerGraph
    tables: Mapping[str, Table]
    limits: Mapping[str, float]
    around: Mapping[str, float]
    of: Candidates

    @property
    def data_key(self) -> str:
        """A digest of what every network that starts from new weights depends on."""
        e = self.context.experiment
        return digest(e.seed, settings_of(e.data), self.context.space.digest, settings_of(e.teacher.head))

    @cached_property
    def affordable(self) -> Affordable:
        return Affordable(self.context.space, self.of, self.limits)


def open_comparison(context: Context, run: Run, budget: Budget) -> Comparison:
    """What a run up to `agree` left. `ConfigError` if the budget is below the smallest model."""
    names = {"nsr": "nsr", "size": "size", "latency": "latency-corrected"}
    tables = {q: Table.load(context.path / "tables" / f"{name}.parquet") for q, name in names.items()}
    tables["nsr"].check_origin({"key": context.keys["tables"], "checkpoint": context.supernets_digest})
    tables["latency"].check_origin({"key": context.keys["profile"]})
    judged = AgreementRecord.read(context.path / AgreementRecord.FILE)
    teacher = quantize_network(context, context.teacher)
    around = {"size": float(bits_outside_blocks(teacher)), "latency": judged.correction.constant_us}
    whole = {"size": teacher.size_bits, "latency": judged.teacher_us}
    shares = {"size": budget.size, "latency": budget.latency}
    budgets = {q: share * whole[q] for q, share in shares.items() if share is not None}
    of = candidates(context.space, [tables["nsr"], *(tables[q] for q in budgets)])
    limits = limits_within(front(of), budgets, around, f"budget '{budget.name}': ")
    return Comparison(context, run, budget, teacher, tables, limits, around, of)
