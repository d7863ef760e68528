"""What a search chooses from: each block's subnets and their additive costs, read once from checked tables.

An architecture costs the sum over its blocks, added up from the first block to the last. Rounding never turns a larger
summand into a smaller sum, so pruning by comparing costs is also correct for these rounded sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError
from nas.search.pareto import Costs, undominated
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table, check_together

Limits = Mapping[str, float]  # the most that an architecture may cost, by objective
Vector = NDArray[np.float64]
Choices = NDArray[np.int64]  # (architectures, blocks): which of each block's subnets


@dataclass(frozen=True)
class Ranked:
    """An architecture and its costs in the order of the objectives."""

    architecture: Architecture
    costs: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The subnets of each block with their costs.

    Attributes:
        objectives: names of the costs; a search minimises the first.
        subnets: by block.
        costs: by block, (subnets, objectives).
    """

    objectives: tuple[str, ...]
    subnets: tuple[tuple[Subnet, ...], ...]
    costs: tuple[Costs, ...]

    @property
    def count(self) -> int:
        """How many architectures they can form."""
        return math.prod(len(block) for block in self.subnets)

    def architecture(self, row: Sequence[int]) -> Architecture:
        return Architecture(tuple(block[i] for block, i in zip(self.subnets, row, strict=True)))

    def totals(self, choices: Choices) -> Costs:
        """The costs of architectures, (n, objectives)."""
        total = np.zeros((len(choices), len(self.objectives)))
        for block, costs in enumerate(self.costs):
            total += costs[choices[:, block]]
        return total

    def least(self) -> Vector:
        """The least that an architecture can cost, each objective separately, (objectives,)."""
        total = np.zeros(len(self.objectives))
        for costs in self.costs:
            total += costs.min(axis=0)
        return total

    def subset(self, rows: Sequence[NDArray[np.int64]]) -> Candidates:
        """Only these rows of each block."""
        subnets = tuple(tuple(block[i] for i in kept) for block, kept in zip(self.subnets, rows, strict=True))
        return Candidates(self.objectives, subnets, tuple(c[kept] for c, kept in zip(self.costs, rows, strict=True)))

    def pruned(self) -> Candidates:
        """Without the subnets that another one of the block dominates; of equal ones the first is kept."""
        return self.subset([undominated(costs) for costs in self.costs])

    def limit_vector(self, limits: Limits) -> Vector:
        """The limits in the order of the objectives, infinite where none is given."""
        unknown = [name for name in limits if name not in self.objectives]
        if unknown:
            raise ConfigError(f"no limit on {unknown[0]}: the search is over {', '.join(self.objectives)}")
        if any(math.isnan(limit) for limit in limits.values()):
            raise ConfigError("a limit is a number, not nan")
        return np.array([limits.get(name, np.inf) for name in self.objectives])

    def check_reachable(self, limits: Limits) -> None:
        """`ConfigError` that names the smallest if no architecture costs so little in some objective."""
        within = self.limit_vector(limits)
        if (self.least() > within).any():
            raise nothing_fits(limits, dict(zip(self.objectives, self.least().tolist(), strict=True)))


def nothing_fits(limits: Limits, least: Limits) -> ConfigError:
    smallest = ", ".join(f"{name} {least[name]:.6g}" for name in limits)
    wanted = ", ".join(f"{name} {limit:.6g}" for name, limit in limits.items())
    each = " (each separately)" if len(limits) > 1 else ""
    return ConfigError(f"no architecture fits {wanted}; the smallest reachable are {smallest}{each}")


def candidates(
    space: SearchSpace, tables: Sequence[Table], allowed: Callable[[Subnet], bool] | None = None
) -> Candidates:
    """Every subnet of the space, over all its bit widths, that is `allowed` (all are, by default).

    Raises `TableError` unless the tables are of this space, complete, finite and of one origin, and `ConfigError` if
    there are no tables or two of one quantity, or if no subnet of a block is allowed.
    """
    objectives = tuple(table.quantity for table in tables)
    if not objectives or len(set(objectives)) < len(objectives):
        raise ConfigError(f"search over {', '.join(objectives) or 'nothing'}: give each objective once")
    for table in tables:
        table.check_space(space)
    check_together(tables)
    every = list(space.all_subnets())
    costs = np.column_stack([table.column(every) for table in tables])
    kept = np.array([allowed is None or allowed(subnet) for subnet in every])
    of_block = np.array([subnet.block for subnet in every])
    subnets, by_block = [], []
    for block in range(1, len(space.blocks) + 1):
        rows = np.flatnonzero(kept & (of_block == block))
        if not len(rows):
            raise ConfigError(f"block {block}: none of its {(of_block == block).sum()} subnets is allowed")
        subnets.append(tuple(every[i] for i in rows))
        by_block.append(costs[rows])
    return Candidates(objectives, tuple(subnets), tuple(by_block))


def within_count(most: float, counts: Table) -> Callable[[Subnet], bool]:
    """Allows the subnets whose entry is at most `most`; `TableError` for one that the table lacks."""
    return lambda subnet: counts[subnet] <= most
