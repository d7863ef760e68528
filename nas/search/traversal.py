"""DNA's traversal search (Li et al., arXiv 1911.13053, section 3.4), for comparison.

Each block's subnets are ranked by their loss. Nested loops visit them in that order; a prefix is cut when it costs
more than the limit minus the cheapest rest, and in the last block the first subnet that fits ends the loop, since those
after it lose more. The result is exact, the time is not bounded: QA-BWNAS reports an hour per model, and seconds after
each block was pruned to its Pareto front (`Candidates.pruned`).

DNA limits one cost, here there may be several, and terms of block boundaries; where these change what is minimised, the
last loop goes on. Its released script also shortens the inner loops permanently after every hit; that skips
architectures that could be better, is not in the paper, and is left out.
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
        self.of, self.within = of, of.limit_vector(limits).tolist()
        ranks = [np.argsort(costs[:, 0], kind="stable") for costs in of.costs]
        self.ranked = [list(zip(r.tolist(), c[r].tolist(), strict=True)) for r, c in zip(ranks, of.costs, strict=True)]
        least = [np.zeros(len(of.objectives)), *(at.terms.min(axis=(0, 1)) for at in of.boundaries)]
        self.cheapest = [[costs.min(axis=0).tolist()] for costs in of.costs]
        if of.boundaries:
            self.cheapest = [[term.tolist(), *costs] for term, costs in zip(least, self.cheapest, strict=True)]
        self.loses_more = not any(at.terms[:, :, 0].any() for at in of.boundaries[-1:])
        self.most, self.visits = most_visits, 0
        self.best: tuple[tuple[float, ...], tuple[int, ...]] | None = None

    def visit(self, block: int, prefix: Sequence[float], row: tuple[int, ...]) -> bool:
        """Visit all completions of a prefix; False where the visits are used up."""
        for i, costs in self.ranked[block]:
            if self.visits == self.most:
                return False
            self.visits += 1
            total = self._appended(block, prefix, row, i, costs)
            if not self._can_fit(block, total):
                continue
            if block == len(self.ranked) - 1:
                if self.best is None or total[0] < self.best[0][0]:
                    self.best = tuple(total), (*row, i)
                if self.loses_more:
                    return True
            elif not self.visit(block + 1, total, (*row, i)):
                return False
        return True

    def _appended(
        self, block: int, prefix: Sequence[float], row: Sequence[int], i: int, costs: Sequence[float]
    ) -> list[float]:
        if row and self.of.boundaries:
            at = self.of.boundaries[block - 1]
            prefix = _plus(prefix, at.terms[at.before[row[-1]], at.after[i]].tolist())
        return _plus(prefix, costs)

    def _can_fit(self, block: int, total: Sequence[float]) -> bool:
        """Whether a prefix up to `block` fits with the cheapest rest, added up in the order of full architectures."""
        for cheapest in self.cheapest[block + 1 :]:
            for costs in cheapest:
                total = _plus(total, costs)
        return all(a <= limit for a, limit in zip(total, self.within, strict=True))


def _plus(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]
