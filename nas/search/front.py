"""The exact Pareto front of whole architectures under additive objectives, for every budget at once.

Each block's dominated subnets can be in no best architecture, and after each block the dominated sums cannot
be completed to an undominated whole; so pruning and merging block by block loses nothing. (QA-BWNAS prunes
the blocks and then traverses; this needs no traversal.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table

Costs = NDArray[np.float64]  # (candidates, objectives), each to be minimised


def undominated(costs: Costs) -> NDArray[np.int64]:
    """Indices of the Pareto-optimal rows, in lexical order of the costs; of equal rows the first is kept."""
    order = np.lexsort(costs.T[::-1])
    ranked = costs[order]
    if costs.shape[1] == 1:
        return order[:1]
    if costs.shape[1] == 2:
        best = np.minimum.accumulate(ranked[:, 1])
        keep = np.r_[True, ranked[1:, 1] < best[:-1]]
        return order[keep]
    kept = np.empty_like(ranked)
    count, indices = 0, []
    for i, row in enumerate(ranked):  # only an earlier row can dominate a later one
        if not (kept[:count, 1:] <= row[1:]).all(axis=1).any():
            kept[count] = row
            count += 1
            indices.append(i)
    return order[np.array(indices, np.int64)]


@dataclass(frozen=True, eq=False)
class Front:
    """Pareto-optimal architectures in order of the first objective; `costs` is (n, objectives)."""

    objectives: tuple[str, ...]
    architectures: tuple[Architecture, ...]
    costs: Costs

    def best(self, budgets: Mapping[str, float]) -> Architecture:
        """The least first objective within `budgets`; `ConfigError` saying the smallest if none fits."""
        fits = np.ones(len(self.costs), bool)
        for name, budget in budgets.items():
            fits &= self.costs[:, self.objectives.index(name)] <= budget
        if not fits.any():
            least = ", ".join(f"{n} {self.costs[:, self.objectives.index(n)].min():.6g}" for n in budgets)
            wanted = ", ".join(f"{n} {b:.6g}" for n, b in budgets.items())
            raise ConfigError(f"no architecture fits {wanted}; the smallest reachable are {least}")
        return self.architectures[int(np.flatnonzero(fits)[np.argmin(self.costs[fits, 0])])]


def exact_front(space: SearchSpace, tables: Sequence[Table]) -> Front:
    """The front over the tables' quantities; the first table is the objective that `Front.best` minimises."""
    for table in tables:
        table.check(space)
    total = np.zeros((1, len(tables)))
    choices = np.zeros((1, 0), np.int64)
    blocks: list[list[Subnet]] = []
    for block in range(1, len(space.blocks) + 1):
        subnets = list(space.subnets(block))
        costs = np.array([[table[subnet] for table in tables] for subnet in subnets])
        kept = undominated(costs)
        blocks.append([subnets[i] for i in kept])
        sums = (total[:, None, :] + costs[kept][None, :, :]).reshape(-1, len(tables))
        best = undominated(sums)
        total = sums[best]
        choices = np.column_stack([choices[best // len(kept)], best % len(kept)])
    architectures = tuple(
        Architecture(tuple(blocks[block][i] for block, i in enumerate(row))) for row in choices.tolist()
    )
    return Front(tuple(table.quantity for table in tables), architectures, total)
