"""The k best architectures under limits, exactly: Lawler's partition over the fronts of prefixes.

The runners-up need not be on the Pareto front, but every sub-problem "these last blocks fixed, one block without these
subnets, the blocks before it free" has its best in (front of the free blocks) x (front of that block's other subnets).
Removing the best of a sub-problem leaves as many smaller ones as it has blocks that are not fixed (Lawler 1972).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.errors import ConfigError
from nas.search.candidates import Candidates, Limits, Ranked, Vector, nothing_fits
from nas.search.front import Prefixes, prefix_fronts
from nas.search.pareto import lexical_order


@dataclass(frozen=True, order=True)
class _SubProblem:
    """A sub-problem with its best architecture: ordered by costs, then by position in the space."""

    costs: tuple[float, ...]
    row: tuple[int, ...]  # of the candidates
    block: int  # the last one that is not fixed
    without: frozenset[int]  # rows that this block must not take


def k_best(of: Candidates, limits: Limits, k: int) -> list[Ranked]:
    """The k least first objectives within `limits`, ties by the next objectives; fewer if fewer fit.

    Raises `ConfigError` naming the smallest if nothing fits.
    """
    if k < 1:
        raise ConfigError(f"the {k} best: ask for at least one")
    of.check_reachable(limits)
    search = _Search(of, of.limit_vector(limits))
    best = search.solve(len(of.costs) - 1, (), frozenset())
    if best is None:
        raise nothing_fits(limits, dict(zip(of.objectives, of.least().tolist(), strict=True)))
    heap = [best]
    ranked: list[Ranked] = []
    while heap and len(ranked) < k:
        top = heapq.heappop(heap)
        ranked.append(Ranked(of.architecture(top.row), top.costs))
        for block in range(top.block + 1):
            without = top.without if block == top.block else frozenset[int]()
            rest = search.solve(block, top.row[block + 1 :], without | {top.row[block]})
            if rest is not None:
                heapq.heappush(heap, rest)
    return ranked


class _Search:
    def __init__(self, of: Candidates, within: Vector) -> None:
        self.of, self.within = of, within
        self.kept = [of.undominated(block) for block in range(len(of.costs))]
        self.prefixes: list[Prefixes] = list(prefix_fronts(of.subset(self.kept)))

    def solve(self, block: int, fixed: Sequence[int], without: frozenset[int]) -> _SubProblem | None:
        """The best with the blocks after `block` as `fixed`, and none of the rows `without` in `block`."""
        rows = np.array([i for i in range(len(self.of.costs[block])) if i not in without], np.int64)
        if not len(rows):
            return None
        rows, beginning = self.of.undominated(block, rows), self.of.beginning(block)
        best: tuple[tuple[float, ...], int, int] | None = None
        for row in rows.tolist():
            _, before = self.prefixes[block][beginning[row]]
            sums = before + self.of.costs[block][row]
            for following in self.of.costs_after(block, row, fixed):
                sums += following
            fits = np.flatnonzero((sums <= self.within).all(axis=1))
            if not len(fits):
                continue
            first = fits[lexical_order(sums[fits])[0]]
            this = (tuple(sums[first].tolist()), row, int(first))
            best = this if best is None else min(best, this)
        if best is None:
            return None
        costs, row, first = best
        choices, _ = self.prefixes[block][beginning[row]]
        head = [int(self.kept[i][c]) for i, c in enumerate(choices[first])]
        return _SubProblem(costs, (*head, row, *fixed), block, without)
