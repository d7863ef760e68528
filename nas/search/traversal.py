"""DNA's traversal search (Li et al., arXiv 1911.13053, section 3.4), for comparison.

Each block's subnets are ranked by their loss. Nested loops visit them in that order; a prefix is cut when it costs
more than the limit minus the cheapest rest, and in the last block the first subnet that fits ends the loop, since those
after it lose more. The result is exact, the time is not bounded: QA-BWNAS reports an hour per model, and seconds after
each block was pruned to its Pareto front (`Candidates.pruned`).

DNA limits one cost, here there may be several. Its released script also shortens the inner loops permanently after
every hit; that skips architectures that could be better, is not in the paper, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.candidates import Candidates, Limits, Ranked


@dataclass(frozen=True)
class Traversal:
    """The result of a traversal.

    Attributes:
        best: None where nothing fits or nothing was reached.
        visits: how many subnets were appended to a prefix.
        complete: False if `most_visits` ended it.
    """

    best: Ranked | None
    visits: int
    complete: bool


def traverse(of: Candidates, limits: Limits, most_visits: int | None = None) -> Traversal:
    """The least first objective within `limits`; a visit appends a subnet to a prefix."""
    state = _State(of, limits, most_visits)
    complete = state.visit(0, (0.0,) * len(of.objectives), ())
    best = None if state.best is None else Ranked(of.architecture(state.best[1]), state.best[0])
    return Traversal(best, state.visits, complete)


class _State:
    def __init__(self, of: Candidates, limits: Limits, most_visits: int | None) -> None:
        self.within: list[float] = of.limit_vector(limits).tolist()
        ranks = [np.argsort(costs[:, 0], kind="stable") for costs in of.costs]
        self.ranked = [list(zip(r.tolist(), c[r].tolist(), strict=True)) for r, c in zip(ranks, of.costs, strict=True)]
        self.cheapest = [costs.min(axis=0).tolist() for costs in of.costs]
        self.most, self.visits = most_visits, 0
        self.best: tuple[tuple[float, ...], tuple[int, ...]] | None = None

    def visit(self, block: int, prefix: Sequence[float], row: tuple[int, ...]) -> bool:
        """Visit all completions of a prefix; False where the visits are used up."""
        for i, costs in self.ranked[block]:
            if self.visits == self.most:
                return False
            self.visits += 1
            total = [a + b for a, b in zip(prefix, costs, strict=True)]
            if not self._can_fit(block, total):
                continue
            if block == len(self.ranked) - 1:
                if self.best is None or total[0] < self.best[0][0]:
                    self.best = tuple(total), (*row, i)
                return True
            if not self.visit(block + 1, total, (*row, i)):
                return False
        return True

    def _can_fit(self, block: int, total: Sequence[float]) -> bool:
        """Whether a prefix up to `block` fits with the cheapest rest, added up in the order of full architectures."""
        for cheapest in self.cheapest[block + 1 :]:
            total = [a + b for a, b in zip(total, cheapest, strict=True)]
        return all(a <= limit for a, limit in zip(total, self.within, strict=True))
