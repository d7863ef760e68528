"""The exact Pareto front of architectures under additive objectives, for every budget at once.

A dominated subnet is in no Pareto-optimal architecture, and after each block a dominated sum cannot become an
undominated one; so pruning and merging block by block loses nothing. (QA-BWNAS prunes the blocks and then traverses;
this needs no traversal.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.search.candidates import Candidates, Choices, Limits, candidates, nothing_fits
from nas.search.pareto import Costs, Indices, undominated
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table

SUMS_AT_ONCE = 1 << 21  # bounds the memory of a merge; the front so far is carried from part to part


@dataclass(frozen=True, eq=False)
class Front:
    """Pareto-optimal architectures in lexical order of their costs; of equal ones the first.

    Attributes:
        pruned: each block's Pareto-optimal subnets.
        choices: (n, blocks), rows of `pruned`.
        costs: (n, objectives).
    """

    pruned: Candidates
    choices: Choices
    costs: Costs

    @property
    def objectives(self) -> tuple[str, ...]:
        return self.pruned.objectives

    def __len__(self) -> int:
        return len(self.costs)

    @cached_property
    def architectures(self) -> tuple[Architecture, ...]:
        return tuple(self.pruned.architecture(row) for row in self.choices.tolist())

    def best(self, limits: Limits) -> Architecture:
        """The least first objective within `limits`; `ConfigError` naming the smallest if none fits."""
        fits = (self.costs <= self.pruned.limit_vector(limits)).all(axis=1)
        if not fits.any():
            raise nothing_fits(limits, dict(zip(self.objectives, self.costs.min(axis=0).tolist(), strict=True)))
        return self.pruned.architecture(self.choices[int(np.argmax(fits))].tolist())


def exact_front(space: SearchSpace, tables: Sequence[Table], allowed: Callable[[Subnet], bool] | None = None) -> Front:
    """The Pareto front over the tables' quantities; the first table is the objective that `Front.best` minimises."""
    return front(candidates(space, tables, allowed))


def front(of: Candidates) -> Front:
    """The Pareto front of all architectures of the candidates."""
    pruned = of.pruned()
    *_, (choices, costs) = prefix_fronts(pruned)
    return Front(pruned, choices, costs)


def prefix_fronts(pruned: Candidates) -> Iterator[tuple[Choices, Costs]]:
    """The Pareto front of the first 0, 1, 2, ... blocks, up to that of full architectures."""
    choices, total = np.zeros((1, 0), np.int64), np.zeros((1, len(pruned.objectives)))
    yield choices, total
    for costs in pruned.costs:
        best, total = _merge(total, costs)
        choices = np.column_stack([choices[best // len(costs)], best % len(costs)])
        yield choices, total


def _merge(total: Costs, costs: Costs) -> tuple[Indices, Costs]:
    """The front of all sums of two rows: (row of `total`) * len(costs) + (row of `costs`), and the sums."""
    best, sums = np.zeros(0, np.int64), np.zeros((0, total.shape[1]))
    step = max(1, SUMS_AT_ONCE // len(costs))
    for start in range(0, len(total), step):
        part = total[start : start + step]
        here = np.empty((len(part) * len(costs), total.shape[1]), order="F")
        for objective in range(total.shape[1]):
            table = here[:, objective].reshape(len(part), len(costs))  # a view: the columns are contiguous
            np.add.outer(part[:, objective], costs[:, objective], out=table)
        both = np.concatenate([sums, here]) if start else here
        indices = np.concatenate([best, np.arange(len(here)) + start * len(costs)])
        kept = undominated(both)
        best, sums = indices[kept], both[kept]
    return best, sums
