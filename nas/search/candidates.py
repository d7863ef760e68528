"""What a search chooses from: each block's subnets and their additive costs, read once from checked tables.

An architecture costs the sum over its blocks, added up from the first block to the last, each after the term of the
boundary before it where there is one. Rounding never turns a larger summand into a smaller sum, so pruning by comparing
costs is also correct for these rounded sums. Where a subnet's neighbours would change too, it has to be ahead by more
than rounding can take back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError
from nas.search.boundary_terms import BoundaryTerms, boundary_terms, undominated_of_classes
from nas.search.pareto import Costs, Indices, undominated
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table, check_together

Limits = Mapping[str, float]  # the most that an architecture may cost, by objective
Vector = NDArray[np.float64]
Choices = NDArray[np.int64]  # (architectures, blocks): which of each block's subnets
ROUNDING = 1e-12  # of the largest sum: more than rounding can make of it


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
        boundaries: the terms of each boundary between two blocks; none: the blocks' costs are all.
    """

    objectives: tuple[str, ...]
    subnets: tuple[tuple[Subnet, ...], ...]
    costs: tuple[Costs, ...]
    boundaries: tuple[BoundaryTerms, ...] = ()

    @property
    def count(self) -> int:
        """How many architectures they can form."""
        return math.prod(len(block) for block in self.subnets)

    def architecture(self, row: Sequence[int]) -> Architecture:
        return Architecture(tuple(block[i] for block, i in zip(self.subnets, row, strict=True)))

    def beginning(self, block: int) -> Indices:
        """The class in which each of the block's subnets begins, (subnets,)."""
        if not self.boundaries or block == 0:
            return np.zeros(len(self.costs[block]), np.int64)
        return self.boundaries[block - 1].after

    def ending(self, block: int) -> Indices:
        """The class in which each of the block's subnets ends, (subnets,)."""
        if not self.boundaries or block == len(self.costs) - 1:
            return np.zeros(len(self.costs[block]), np.int64)
        return self.boundaries[block].before

    def totals(self, choices: Choices) -> Costs:
        """The costs of architectures, (n, objectives)."""
        total = np.zeros((len(choices), len(self.objectives)))
        for block, costs in enumerate(self.costs):
            if block and self.boundaries:
                total += self.boundaries[block - 1].between(choices[:, block - 1], choices[:, block])
            total += costs[choices[:, block]]
        return total

    def costs_after(self, block: int, row: int, rows: Sequence[int]) -> Iterator[Vector]:
        """What follows subnet `row` of the block where the later blocks have `rows`, in the order of its summing."""
        for at, after in enumerate(rows, start=block + 1):
            if self.boundaries:
                terms = self.boundaries[at - 1]
                yield terms.terms[terms.before[row], terms.after[after]]
            yield self.costs[at][after]
            row = after

    def least(self) -> Vector:
        """The least that an architecture can cost, each objective separately, (objectives,)."""
        if self.boundaries:
            return self._least_by_class()
        total = np.zeros(len(self.objectives))
        for costs in self.costs:
            total += costs.min(axis=0)
        return total

    def _least_by_class(self) -> Vector:
        least = np.zeros((1, len(self.objectives)))  # of the blocks so far, by the class in which the next one begins
        for block, costs in enumerate(self.costs):
            ending, last = self.ending(block), block == len(self.costs) - 1
            classes = 1 if last else len(self.boundaries[block].terms)
            sums = least[self.beginning(block)] + costs
            ended = np.full((classes, len(self.objectives)), np.inf)
            np.minimum.at(ended, ending, sums)
            least = ended if last else (ended[:, None] + self.boundaries[block].terms).min(axis=0)
        return np.asarray(least[0])

    def subset(self, rows: Sequence[NDArray[np.int64]]) -> Candidates:
        """Only these rows of each block."""
        subnets = tuple(tuple(block[i] for i in kept) for block, kept in zip(self.subnets, rows, strict=True))
        costs = tuple(c[kept] for c, kept in zip(self.costs, rows, strict=True))
        terms = tuple(t.subset(*pair) for t, pair in zip(self.boundaries, pairwise(rows), strict=False))
        return Candidates(self.objectives, subnets, costs, terms)

    def undominated(self, block: int, rows: Indices | None = None) -> Indices:
        """Of the block's subnets (or of some `rows`) those that no other one dominates; of equal ones the first.

        Where boundaries have terms, another one is better only if it is so whatever its neighbours are.
        """
        rows = np.arange(len(self.costs[block])) if rows is None else rows
        costs = self.costs[block][rows]
        if not self.boundaries:
            return rows[undominated(costs)]
        beginning, ending = self.beginning(block)[rows], self.ending(block)[rows]
        classes = sorted(set(zip(beginning.tolist(), ending.tolist(), strict=True)))
        members = [np.flatnonzero((beginning == b) & (ending == e)) for b, e in classes]
        members = [found[undominated(costs[found])] for found in members]
        exchange = np.zeros((len(classes), len(classes), len(self.objectives)))
        for side, at in enumerate((block - 1, block)):
            if 0 <= at < len(self.boundaries):
                own = [kind[side] for kind in classes]
                exchange += self.boundaries[at].worst_exchange[1 - side][np.ix_(own, own)]
        kept = undominated_of_classes([costs[found] for found in members], exchange + self.slack)
        best: Indices = rows[np.concatenate([found[mask] for found, mask in zip(members, kept, strict=True)])]
        return best

    @cached_property
    def slack(self) -> Vector:
        """By how much a cost has to be lower to stay so when neighbouring terms change, (objectives,): rounding."""
        most = np.sum([np.abs(costs).max(axis=0) for costs in self.costs], axis=0)
        most += np.sum([np.abs(at.terms).max(axis=(0, 1)) for at in self.boundaries], axis=0)
        changing = np.any([(at.terms != 0).any(axis=(0, 1)) for at in self.boundaries], axis=0)
        return np.where(changing, ROUNDING * most, 0.0)

    def pruned(self) -> Candidates:
        """Without the subnets that another one of the block dominates; of equal ones the first is kept."""
        return self.subset([self.undominated(block) for block in range(len(self.costs))])

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
    return Candidates(objectives, tuple(subnets), tuple(by_block), boundary_terms(subnets, tables))


def within_count(most: float, counts: Table) -> Callable[[Subnet], bool]:
    """Allows the subnets whose entry is at most `most`; `TableError` for one that the table lacks."""
    return lambda subnet: counts[subnet] <= most
