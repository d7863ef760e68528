"""Which rows of a cost matrix are Pareto-optimal: exact, for up to a few objectives and millions of rows.

Three steps, none with a tolerance: a grid discards rows that a full cell separates from a better one, a sort puts the
rest in lexical order (only an earlier row can dominate a later one), and a sweep along it keeps the staircase of the
other two objectives; where there are more, divide and conquer ends in staircases (Kung, Luccio, Preparata 1975).
There are only comparisons, so the result is that of comparing all pairs.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]  # (candidates, objectives), each to be minimised
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

GRID_FROM = 2048  # rows; below, sorting all of them is as fast
GRID_CELLS = 1 << 16
ALL_PAIRS = 64  # rows that are compared pair by pair
EARLIER = np.triu(np.ones((ALL_PAIRS, ALL_PAIRS), np.bool_), 1)


def undominated(costs: Costs) -> Indices:
    """Indices of the Pareto-optimal rows, in lexical order of the costs; of equal rows the first is kept."""
    objectives = costs.shape[1]
    rows = _not_far_behind(costs) if objectives > 2 and len(costs) >= GRID_FROM else np.arange(len(costs))
    order = rows[lexical_order(costs[rows])]
    if objectives == 1:
        return order[:1]
    ranked = costs[order, 1:]
    if objectives == 2:
        best = np.minimum.accumulate(ranked[:, 0])
        return order[np.r_[True, ranked[1:, 0] < best[:-1]]]
    if objectives == 3:
        return order[_sweep(ranked)]
    return order[_leaders(ranked, np.arange(len(ranked)))]


def lexical_order(costs: Costs) -> Indices:
    """As `np.lexsort` with the first objective leading: sorted by it alone, then only its ties by the others."""
    order = np.argsort(costs[:, 0])
    first = costs[order, 0]
    tied = first[1:] == first[:-1]
    if tied.any():
        again = np.flatnonzero(np.r_[tied, False] | np.r_[False, tied])
        members = np.sort(order[again])
        order[again] = members[np.lexsort(costs[members].T[::-1])]
    return order


def _not_far_behind(costs: Costs) -> Indices:
    """Indices, ascending, of the rows that the grid cannot discard.

    A row is discarded if a row in a cell that is lower in every objective except the last is no larger in the last. A
    cell's number never falls as the cost rises, so a lower number means a lower cost.
    """
    axes = costs.shape[1] - 1
    cells = int(GRID_CELLS ** (1 / axes))
    low, high = costs[:, :-1].min(axis=0), costs[:, :-1].max(axis=0)
    flat, above = np.zeros(len(costs), np.int64), 0
    for axis in range(axes):
        scale = (cells - 1) / (high[axis] - low[axis]) if high[axis] > low[axis] else 0.0
        flat = flat * (cells + 1) + ((costs[:, axis] - low[axis]) * scale).astype(np.int64)
        above = above * (cells + 1) + 1
    best = np.full((cells + 1) ** axes, np.inf)  # [i, j]: the least last objective of cells below i and below j
    np.minimum.at(best, flat + above, costs[:, -1])
    grid = best.reshape((cells + 1,) * axes)
    for axis in range(axes):
        np.minimum.accumulate(grid, axis=axis, out=grid)
    return np.flatnonzero(best[flat] > costs[:, -1])


def _sweep(ranked: Costs) -> list[int]:
    """As `_leaders` of all rows, for two columns; twice as fast, although it is a loop in Python."""
    xs: list[float] = []  # the staircase so far: xs ascend, ys descend
    ys: list[float] = []
    kept = []
    for row, (x, y) in enumerate(zip(ranked[:, 0].tolist(), ranked[:, 1].tolist(), strict=True)):
        start = bisect_right(xs, x)
        if start and ys[start - 1] <= y:
            continue
        kept.append(row)
        end = start
        while end < len(ys) and ys[end] >= y:
            end += 1
        xs[start:end] = [x]  # an equal x before it with a larger y stays, which changes nothing
        ys[start:end] = [y]
    return kept


def _leaders(ranked: Costs, rows: Indices) -> Indices:
    """Those of `rows` (ascending) for which no earlier one is at most equal in every column of `ranked`."""
    if len(rows) <= ALL_PAIRS:
        some = ranked[rows]
        behind = (_no_worse(some, some) & EARLIER[: len(rows), : len(rows)]).any(axis=0)
        return rows[~behind]
    left = _leaders(ranked, rows[: len(rows) // 2])
    right = rows[len(rows) // 2 :]
    right = right[~covered(ranked[left], ranked[right])]
    return np.concatenate([left, _leaders(ranked, right)]) if len(right) else left


def _no_worse(a: Costs, b: Costs) -> Mask:
    """[i, j]: row i of `a` is at most row j of `b` in every column."""
    result: Mask = a[:, None, 0] <= b[None, :, 0]
    for column in range(1, a.shape[1]):
        result &= a[:, None, column] <= b[None, :, column]
    return result


def covered(by: Costs, of: Costs) -> Mask:
    """For each row of `of` whether a row of `by` is at most equal to it in every column."""
    if not (len(by) and len(of)):
        return np.zeros(len(of), bool)
    if by.shape[1] == 1:
        return np.asarray(by.min() <= of[:, 0])
    if by.shape[1] == 2:
        order = np.argsort(by[:, 0])
        least = np.full(len(by) + 1, np.inf)
        np.minimum.accumulate(by[order, 1], out=least[1:])
        stairs: Mask = least[np.searchsorted(by[order, 0], of[:, 0], side="right")] <= of[:, 1]
        return stairs
    if len(by) * len(of) <= ALL_PAIRS**2:
        return np.asarray(_no_worse(by, of).any(axis=0))
    values = np.unique(np.r_[by[:, 0], of[:, 0]])
    middle = values[(len(values) - 1) // 2]
    low, high = by[:, 0] <= middle, of[:, 0] > middle
    result = np.zeros(len(of), bool)
    if len(values) == 1:
        return covered(by[:, 1:], of[:, 1:])
    result[~high] = covered(by[low], of[~high])
    result[high] = covered(by[low, 1:], of[high, 1:])
    rest = np.flatnonzero(high)[~result[high]]
    result[rest] = covered(by[~low], of[rest])
    return result
