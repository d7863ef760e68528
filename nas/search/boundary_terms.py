"""What neighbouring blocks cost beyond their own costs, by the layers that meet at their boundary.

A term depends on the last choice of a block and the first of the next. Choices whose terms are all equal are one class,
so a boundary at which nothing was measured to interact has one class on either side, and costs a search nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nas.errors import TableError
from nas.search.pareto import Costs, Indices, Mask, covered
from nas.space import Boundary, Subnet
from nas.table import Table

Terms = NDArray[np.float64]  # (classes before, classes after, objectives)


@dataclass(frozen=True, eq=False)
class BoundaryTerms:
    """The terms of one boundary.

    Attributes:
        before: (subnets of the block before,) the class that each ends in.
        after: (subnets of the block after,) the class that each begins in.
        terms: (classes before, classes after, objectives).
    """

    before: Indices
    after: Indices
    terms: Terms

    @classmethod
    def of(cls, before: Sequence[Subnet], after: Sequence[Subnet], tables: Sequence[Table]) -> BoundaryTerms:
        """Between two blocks' subnets; `TableError` for a term that is not finite."""
        lasts, ending = np.unique([str(subnet.choices[-1]) for subnet in before], return_inverse=True)
        firsts, beginning = np.unique([str(subnet.choices[0]) for subnet in after], return_inverse=True)
        last = {str(subnet.choices[-1]): subnet for subnet in before}
        first = {str(subnet.choices[0]): subnet for subnet in after}
        met = [[Boundary.between(last[x], first[y]) for y in firsts] for x in lasts]
        terms = np.array([[[table.interaction(b) for table in tables] for b in row] for row in met])
        if not np.isfinite(terms).all():
            raise TableError(f"an interaction of b{before[0].block} and b{after[0].block} is not finite; measure again")
        terms, rows = np.unique(terms, axis=0, return_inverse=True)
        terms, columns = np.unique(terms, axis=1, return_inverse=True)
        return cls(rows.ravel()[ending], columns.ravel()[beginning], terms)

    def between(self, before: Indices, after: Indices) -> Costs:
        """The terms of pairs of subnets, (n, objectives)."""
        terms: Costs = self.terms[self.before[before], self.after[after]]
        return terms

    @cached_property
    def worst_exchange(self) -> tuple[Terms, Terms]:
        """The most that ending (beginning) in class j instead of i adds, whatever follows (precedes): [i, j]."""
        ending = (self.terms[None] - self.terms[:, None]).max(axis=2)
        across = self.terms.swapaxes(0, 1)
        return ending, (across[None] - across[:, None]).max(axis=2)

    def subset(self, before: Indices, after: Indices) -> BoundaryTerms:
        """Of these subnets alone."""
        return replace(self, before=self.before[before], after=self.after[after])


def boundary_terms(subnets: Sequence[Sequence[Subnet]], tables: Sequence[Table]) -> tuple[BoundaryTerms, ...]:
    """Of every boundary between the blocks; nothing where the tables have no interactions."""
    if not any(table.interactions for table in tables):
        return ()
    return tuple(BoundaryTerms.of(before, after, tables) for before, after in pairwise(subnets))


def undominated_of_classes(costs: Sequence[Costs], exchange: Terms) -> list[Mask]:
    """By class, which rows no row of another class dominates even where the exchange of classes costs the most.

    `exchange`: [i, j], (objectives,): what class j instead of i may add.
    """
    kept = []
    for i, own in enumerate(costs):
        others = [other + exchange[i, j] for j, other in enumerate(costs) if j != i]
        kept.append(~covered(np.concatenate(others), own) if others else np.ones(len(own), np.bool_))
    return kept
