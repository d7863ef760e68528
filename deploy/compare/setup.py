"""What methods of search are compared on: one space, one budget, one set of tables, one data set."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from deploy.compare.records import Spent
from deploy.compile.artifact import bits_outside_blocks
from deploy.formats.digest import digest
from deploy.run.config import Budget
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.keys import settings_of
from deploy.run.quantizing import quantize_network
from deploy.run.records import AgreementRecord
from deploy.search.cost_tables import main_cost_tables
from nas.quant.integer_graph import IntegerGraph
from nas.search.budgets import limits_within
from nas.search.candidates import Candidates, Limits
from nas.search.front import front
from nas.search.union import CostTables
from nas.sharing.affordable import Affordable
from nas.space import Architecture


def spent_in(run: Run, name: str) -> Spent:
    """What a stage of a run took, over all interruptions."""
    return Spent(run.stages[name].seconds, run.stages[name].cpu_seconds)


@dataclass(frozen=True)
class Winner:
    """What a method selected.

    Attributes:
        architecture: within the budget.
        spent: by step, what the method took to select it.
        evaluated: architectures that were evaluated on the way; 0: the method reads tables.
        fitness: the winner's then, in percent; None of a method that reads tables.
        complete: False where the search was cut off and there may be a better one.
    """

    architecture: Architecture
    spent: Mapping[str, Spent]
    evaluated: int = 0
    fitness: float | None = None
    complete: bool = True


Selecting = Generator[Progress, None, Winner]


@dataclass(frozen=True, eq=False)
class SearchComparison:
    """One budget of one run.

    Attributes:
        context: of the experiment.
        run: the comparison's folder, in the experiment's.
        budget: that every method keeps to.
        teacher: the INT8 teacher.
        cost_tables: of the main scheme.
        limits: the budget in the tables' units, without what lies outside the blocks.
        candidates: every subnet with its NSR and what is limited.
    """

    context: Context
    run: Run
    budget: Budget
    teacher: IntegerGraph
    cost_tables: CostTables
    limits: Limits
    candidates: Candidates

    @property
    def data_key(self) -> str:
        """A digest of what every network that starts from new weights depends on."""
        e = self.context.experiment
        return digest(e.seed, settings_of(e.data), self.context.space.digest, settings_of(e.teacher.head))

    @cached_property
    def affordable(self) -> Affordable:
        return Affordable(self.context.space, self.candidates, self.limits)


def open_comparison(context: Context, run: Run, budget: Budget) -> SearchComparison:
    """What a run up to `agree` left. `ConfigError` if the budget is below the smallest model."""
    agreed = AgreementRecord.read(context.path / AgreementRecord.FILE)
    teacher = quantize_network(context, context.teacher)
    cost_tables = main_cost_tables(
        context.path,
        str(context.experiment.quantization.main_scheme),
        context.keys,
        {"size": float(bits_outside_blocks(teacher)), "latency": agreed.correction.constant_us},
    )
    cost_tables = replace(cost_tables, teacher={"size": float(teacher.size_bits), "latency": agreed.teacher_us})
    shares = {"size": budget.size, "latency": budget.latency}
    budgets = {
        quantity: share * cost_tables.teacher[quantity] for quantity, share in shares.items() if share is not None
    }
    candidates = cost_tables.candidates(context.space, ["nsr", *budgets])
    limits = limits_within(front(candidates), budgets, cost_tables.outside, f"budget '{budget.name}': ")
    return SearchComparison(context, run, budget, teacher, cost_tables, limits, candidates)
