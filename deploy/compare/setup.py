"""What methods of search are compared on: one space, one budget, one set of tables, one data set."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import torch

from deploy.compare.records import Spent
from deploy.compile.artifact import bits_outside_blocks
from deploy.formats.digest import digest
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.keys import settings_of
from deploy.run.networks import start_of_retraining
from deploy.run.quantizing import quantize_network
from deploy.run.records import AgreementRecord
from deploy.run.settings.deployment import Budget
from deploy.search.cost_tables import main_cost_tables
from nas.estimate import Estimate
from nas.networks.segmenter import Encoder
from nas.networks.start import start_network
from nas.quant.integer_graph import IntegerGraph
from nas.search.budgets import limits_within
from nas.search.candidates import Candidates, Limits
from nas.search.front import front
from nas.search.union import CostTables
from nas.sharing.affordable import Affordable
from nas.space import Architecture
from nas.table import subnet_size_bits
from nas.tasks.task import network


def spent_in(run: Run, name: str) -> Spent:
    """What a stage of a run took, over all interruptions."""
    return Spent(run.stages[name].seconds, run.stages[name].cpu_seconds)


Start: TypeAlias = Literal["recipe", "teacher"]


@dataclass(frozen=True)
class Winner:
    """What a method selected.

    Attributes:
        architecture: within the budget; a control's may be none of the space's.
        spent: by step, what the method took to select it.
        evaluated: architectures that were evaluated on the way; 0: the method reads tables.
        fitness: the winner's then, in percent; None of a method that reads tables.
        complete: False where the search was cut off and there may be a better one.
        start: what it is retrained from: what the retraining recipe says, or the teacher's weights whatever it says.
        latency_share: of the teacher's, measured beside it, where that and no table says that it is within the budget.
    """

    architecture: Architecture
    spent: Mapping[str, Spent]
    evaluated: int = 0
    fitness: float | None = None
    complete: bool = True
    start: Start = "recipe"
    latency_share: Estimate | None = None


Selecting = Generator[Progress, None, Sequence[Winner]]
"""What a method selects: one winner, several random ones, or none where nothing of its kind is within the budget."""


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

    def size_bits(self, architecture: Architecture) -> float:
        """Of the full network, exactly; also of one that is not in the space."""
        space, outside = self.context.space, self.cost_tables.outside["size"]
        return outside + sum(subnet_size_bits(space, subnet) for subnet in architecture.subnets)

    @property
    def data_key(self) -> str:
        """A digest of what every network that starts from new weights depends on."""
        e = self.context.experiment
        return digest(e.seed, settings_of(e.data), self.context.space.digest, settings_of(e.teacher.head))

    @cached_property
    def affordable(self) -> Affordable:
        return Affordable(self.context.space, self.candidates, self.limits)


def started(context: Context, architecture: Architecture, start: Start = "recipe") -> Encoder:
    """What a network is retrained from.

    By the recipe of `context` a network that is not in the space starts from the teacher (`nas.networks.start`), since
    the supernets have no blocks for it, unless the recipe starts from new weights.
    """
    if start == "recipe" and context.space.contains(architecture):
        return start_of_retraining(context, architecture)
    e = context.experiment
    torch.manual_seed(e.seed)
    layers = [subnet.choices for subnet in architecture.subnets]
    model = network(context.train_data, context.space, layers, e.teacher.head)
    if start == "teacher" or e.retrain.start == "supernet":
        start_network(model, context.teacher)
    return model


def block_tables(comparison: SearchComparison) -> dict[str, Spent]:
    """What the run spent on everything that a search over tables needs."""
    stages = {"teacher": "teacher", "train": "distil", "tables": "tables"}
    return {column: spent_in(comparison.context.run, stage) for column, stage in stages.items()}


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
    candidates = cost_tables.with_bits(budget.bits).candidates(context.space, ["nsr", *budgets])
    limits = limits_within(front(candidates), budgets, cost_tables.outside, f"budget '{budget.name}': ")
    return SearchComparison(context, run, budget, teacher, cost_tables, limits, candidates)
