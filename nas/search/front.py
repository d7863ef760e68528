"""The exact Pareto front of architectures under additive objectives, for every budget at once.

A dominated subnet is in no Pareto-optimal architecture, and after each block a dominated sum cannot become an
undominated one; so pruning and merging block by block loses nothing. (QA-BWNAS prunes the blocks and then traverses;
this needs no traversal.)

Where the layers at a block boundary interact, what follows depends on the class in which a block ends: dynamic
programming keeps a front for each class, and across classes drops only what is behind whatever follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from nas.search.boundary_terms import undominated_of_classes
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
    *_, ((choices, costs),) = prefix_fronts(pruned)
    return Front(pruned, choices, costs)


Prefixes: TypeAlias = list[tuple[Choices, Costs]]
"""Pareto-optimal choices of the first blocks with their costs, by class at the end of them."""


def prefix_fronts(pruned: Candidates) -> Iterator[Prefixes]:
    """The Pareto fronts of the first 0, 1, 2, ... blocks, up to that of full architectures.

    One for each class in which the next block may begin, the terms of the boundary before it included; without terms,
    and of full architectures, one.
    """
    prefixes: Prefixes = [(np.zeros((1, 0), np.int64), np.zeros((1, len(pruned.objectives))))]
    yield prefixes
    for block in range(len(pruned.costs)):
        prefixes = _appended(pruned, block, prefixes)
        if block < len(pruned.boundaries):
            terms = pruned.boundaries[block].terms
            prefixes = [
                _front([(choices, costs + term) for (choices, costs), term in zip(prefixes, before, strict=True)])
                for before in terms.swapaxes(0, 1)
            ]
        yield prefixes


def _appended(pruned: Candidates, block: int, prefixes: Prefixes) -> Prefixes:
    """The fronts of prefixes with the block's subnets, by the class in which these end."""
    beginning, ending, costs = pruned.beginning(block), pruned.ending(block), pruned.costs[block]
    ends = len(pruned.boundaries[block].terms) if block < len(pruned.boundaries) else 1
    grown: Prefixes = []
    for end in range(ends):
        rows = [np.flatnonzero((beginning == begin) & (ending == end)) for begin in range(len(prefixes))]
        best, sums = _merge([(total, costs[of]) for (_, total), of in zip(prefixes, rows, strict=True)])
        grown.append((_choices_of(best, prefixes, rows), sums))
    if block < len(pruned.boundaries):
        exchange, _ = pruned.boundaries[block].worst_exchange
        kept = undominated_of_classes([costs for _, costs in grown], exchange + pruned.slack)
        grown = [(choices[mask], costs[mask]) for (choices, costs), mask in zip(grown, kept, strict=True)]
    return grown


def _choices_of(best: Indices, prefixes: Prefixes, rows: Sequence[Indices]) -> Choices:
    """Merged sums, as `_merge` numbers them, as choices of one block more."""
    choices = np.empty((len(best), prefixes[0][0].shape[1] + 1), np.int64)
    first = 0
    for (before, total), of in zip(prefixes, rows, strict=True):
        here = np.flatnonzero((best >= first) & (best < first + len(total) * len(of)))
        if len(here):
            row, column = np.divmod(best[here] - first, len(of))
            choices[here] = np.column_stack([before[row], of[column]])
        first += len(total) * len(of)
    return choices


def _front(parts: Prefixes) -> tuple[Choices, Costs]:
    """The front of fronts, of which some may be empty."""
    filled = [part for part in parts if len(part[1])]
    if len(filled) < 2:
        return filled[0] if filled else parts[0]
    choices, costs = (np.concatenate(columns) for columns in zip(*filled, strict=True))
    kept = undominated(costs)
    return choices[kept], costs[kept]


def _merge(pairs: Sequence[tuple[Costs, Costs]]) -> tuple[Indices, Costs]:
    """The front of all sums of two rows of a pair, and the sums.

    Sums are numbered from pair to pair: (row of the first) * (rows of the second) + (row of the second).
    """
    objectives = pairs[0][0].shape[1]
    best, sums, first = np.zeros(0, np.int64), np.zeros((0, objectives)), 0
    waiting: list[tuple[Indices, Costs]] = []
    for total, costs in pairs:
        step = max(1, SUMS_AT_ONCE // max(1, len(costs)))
        for start in range(0, len(total) if len(costs) else 0, step):
            part = total[start : start + step]
            here = np.empty((len(part) * len(costs), objectives), order="F")
            for objective in range(objectives):
                table = here[:, objective].reshape(len(part), len(costs))  # a view: the columns are contiguous
                np.add.outer(part[:, objective], costs[:, objective], out=table)
            waiting.append((first + start * len(costs) + np.arange(len(here)), here))
            if sum(len(numbers) for numbers, _ in waiting) + len(costs) > SUMS_AT_ONCE:
                best, sums = _best_of((best, sums), waiting)
                waiting = []
        first += len(total) * len(costs)
    return _best_of((best, sums), waiting) if waiting else (best, sums)


def _best_of(found: tuple[Indices, Costs], more: Sequence[tuple[Indices, Costs]]) -> tuple[Indices, Costs]:
    parts = [found, *more] if len(found[0]) else more
    indices, sums = (np.concatenate(columns) for columns in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]
    kept = undominated(sums)
    return indices[kept], sums[kept]
