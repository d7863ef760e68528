"""One choice of each group at the least cost within limits (the multiple-choice knapsack), by HiGHS, exactly.

HiGHS works within tolerances. Here its solutions are added up again, and one that slightly exceeds a limit is excluded
by a cut. Choices that no optimal solution can contain are removed first: by the dual prices of the relaxation, those
whose loss exceeds the gap between the relaxed bound and a known solution (Kellerer, Pferschy, Pisinger 2004, chapter
11).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]

SCALE = 1e3  # the largest coefficient; HiGHS's tolerances are absolute, 1e-6
ROUNDING = 1e-9
OPTIMAL, INFEASIBLE = 0, 2


@dataclass(frozen=True, eq=False)
class Knapsack:
    """Take one column of each group.

    Attributes:
        group: (columns,) which group a column is of: 0, 1, 2, ..., ascending.
        cost: (columns,) what is minimised.
        rows: (limits, columns) what is limited.
        most: (limits,) the most that the columns taken may add up to.
    """

    group: Indices
    cost: Vector
    rows: Matrix
    most: Vector

    @property
    def groups(self) -> int:
        return int(self.group[-1]) + 1

    @property
    def starts(self) -> Indices:
        """The first column of each group, (groups,)."""
        return np.searchsorted(self.group, np.arange(self.groups))

    def fits(self, taken: Indices) -> bool:
        return bool((self.rows[:, taken].sum(axis=1) <= self.most).all())

    def only(self, columns: Indices) -> Knapsack:
        """With these columns only, ascending, of which each group has at least one."""
        return Knapsack(self.group[columns], self.cost[columns], self.rows[:, columns], self.most)

    def above_least(self, values: Vector) -> Vector:
        """Each column's value minus the least of its group, (columns,)."""
        return values - np.minimum.reduceat(values, self.starts)[self.group]

    def scales(self) -> tuple[float, Vector]:
        """Factors that scale differences within groups to at most `SCALE`: of the cost, and of each limit (limits,)."""
        return _scale(self.above_least(self.cost)), np.array([_scale(self.above_least(row)) for row in self.rows])

    def scaled(self) -> Knapsack:
        """The same problem in differences within groups, all between 0 and `SCALE`."""
        of_cost, of_rows = self.scales()
        rows = np.array([self.above_least(row) for row in self.rows]).reshape(self.rows.shape)
        least = (self.rows - rows)[:, self.starts].sum(axis=1)
        return Knapsack(
            self.group, self.above_least(self.cost) * of_cost, rows * of_rows[:, None], (self.most - least) * of_rows
        )

    def no_worse_than(self, taken: Indices) -> Knapsack:
        """With the cost of a known solution as one more limit: HiGHS ends sooner."""
        cost = float(self.cost[taken].sum()) + ROUNDING * SCALE
        return Knapsack(self.group, self.cost, np.vstack([self.rows, self.cost]), np.append(self.most, cost))


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The linear relaxation: `shares` (columns,) taken, `prices` (limits,) of a unit of each limit."""

    shares: Vector
    prices: Vector


def least(problem: Knapsack) -> Indices | None:
    """The column of each group that cost least together within the limits, (groups,); None if nothing fits."""
    if not len(problem.most):
        return _taken(problem, -problem.cost)
    easy = problem.scaled()
    relaxed = None if (easy.most < 0).any() else relax(easy)  # below 0 even the least of each group exceeds a limit
    if relaxed is None:
        return None
    known = _rounded(easy, relaxed.shares)
    if known is None:
        kept = np.arange(len(problem.group))
        small, scaled = problem, easy
    else:
        known = _improved(easy, known)
        kept = _worth_keeping(easy, relaxed, known)
        small = problem.only(kept)
        scaled = small.scaled().no_worse_than(np.searchsorted(kept, known))
    cuts: list[Indices] = []
    while (taken := _by_highs(scaled, cuts)) is not None:
        if small.fits(taken):
            return kept[taken]
        cuts.append(taken)
    return None


def limit_prices(problem: Knapsack) -> Vector:
    """The dual price of a unit of each limit at the relaxation's optimum, (limits,); zeros if it has none."""
    relaxed = relax(problem.scaled()) if len(problem.most) else None
    if relaxed is None:
        return np.zeros(len(problem.most))
    of_cost, of_rows = problem.scales()
    return relaxed.prices * of_rows / of_cost


def least_share(problem: Knapsack) -> Indices:
    """The columns that exceed the limits least, measured by the largest excess as a share of its limit."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = problem.rows / problem.most[:, None]
    columns = len(problem.group)
    with _silent():
        result = milp(
            np.r_[np.zeros(columns), 1.0],
            integrality=np.r_[np.ones(columns), 0.0],
            bounds=Bounds(0, np.r_[np.ones(columns), np.inf]),
            constraints=[
                LinearConstraint(np.column_stack([_one_of_each(problem), np.zeros(problem.groups)]), 1, 1),
                LinearConstraint(np.column_stack([rows, -np.ones(len(rows))]), -np.inf, 1),
            ],
            options={"mip_rel_gap": 0},
        )
    return _taken(problem, result.x[:columns])


def relax(problem: Knapsack) -> Relaxed | None:
    """The relaxation of a `scaled` problem by linear programming; None if even that is infeasible."""
    from scipy.optimize import linprog

    result: Any = linprog(
        problem.cost, problem.rows, problem.most, _one_of_each(problem), np.ones(problem.groups), bounds=(0, 1)
    )
    if result.status == INFEASIBLE:
        return None
    if result.status != OPTIMAL:
        raise ArithmeticError(f"HiGHS: {result.message}")
    return Relaxed(np.asarray(result.x), np.maximum(-np.asarray(result.ineqlin.marginals), 0.0))


def _worth_keeping(problem: Knapsack, relaxed: Relaxed, known: Indices) -> Indices:
    """The columns that a solution no worse than the known one may contain; its own are among them."""
    priced = problem.cost + relaxed.prices @ problem.rows
    loss = problem.above_least(priced)
    bound = float((priced - loss)[problem.starts].sum() - relaxed.prices @ problem.most)
    gap = float(problem.cost[known].sum()) - bound
    return np.flatnonzero(loss <= gap + ROUNDING * SCALE)


def _rounded(problem: Knapsack, shares: Vector) -> Indices | None:
    """The best solution that differs from the relaxation only in the groups that it divides (few: one per limit)."""
    taken = _taken(problem, shares)
    divided = np.flatnonzero(shares[taken] < 1.0 - ROUNDING)
    undivided = np.delete(taken, divided)
    rows, cost = problem.rows[:, undivided].sum(axis=1)[:, None], np.zeros(1)
    tried = np.zeros((1, 0), np.int64)
    for group in divided:
        columns = np.flatnonzero(problem.group == group)
        rows = (rows[:, :, None] + problem.rows[:, None, columns]).reshape(len(rows), -1)
        cost = (cost[:, None] + problem.cost[columns]).reshape(-1)
        tried = np.column_stack([np.repeat(tried, len(columns), axis=0), np.tile(columns, len(tried))])
    cost = np.where((rows <= problem.most[:, None]).all(axis=0), cost, np.inf)
    best = int(np.argmin(cost))
    if cost[best] == np.inf:
        return None
    taken[divided] = tried[best]
    return taken


def _improved(problem: Knapsack, taken: Indices) -> Indices:
    """Repeatedly the best exchange of choices in two groups, until none lowers the cost."""
    while True:
        cost = problem.cost - problem.cost[taken][problem.group]
        rows = problem.rows - problem.rows[:, taken][:, problem.group]
        spare = problem.most - problem.rows[:, taken].sum(axis=1)
        both = np.add.outer(cost, cost)
        both[problem.group[:, None] == problem.group] = np.inf
        for row, most in zip(rows, spare, strict=True):
            both[np.add.outer(row, row) > most] = np.inf
        first, second = np.unravel_index(int(np.argmin(both)), both.shape)
        if not both[first, second] < -ROUNDING * SCALE:
            return taken
        taken = taken.copy()
        taken[problem.group[[first, second]]] = first, second


def _by_highs(problem: Knapsack, cuts: list[Indices]) -> Indices | None:
    """The best of a `scaled` problem, up to HiGHS's tolerances, that is none of `cuts`."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    constraints = [
        LinearConstraint(_one_of_each(problem), 1, 1),
        LinearConstraint(problem.rows, -np.inf, problem.most),
    ]
    for cut in cuts:
        these = np.isin(np.arange(len(problem.group)), cut).astype(float)
        constraints.append(LinearConstraint(these, -np.inf, problem.groups - 1))
    with _silent():
        result: Any = milp(
            problem.cost,
            integrality=np.ones(len(problem.cost)),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0},
        )
    if result.status == INFEASIBLE:
        return None
    if result.status != OPTIMAL:
        raise ArithmeticError(f"HiGHS: {result.message}")
    return _taken(problem, result.x)


def _scale(values: Vector) -> float:
    largest = float(values.max())
    return SCALE / largest if largest else 1.0


def _one_of_each(problem: Knapsack) -> Matrix:
    """(groups, columns): ones where a column is of a group."""
    return np.asarray(problem.group == np.arange(problem.groups)[:, None], float)


def _taken(problem: Knapsack, shares: Vector) -> Indices:
    """The column of each group with the largest share, (groups,)."""
    order = np.lexsort([-shares, problem.group])
    taken: Indices = order[problem.starts]
    return taken


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps output of C code away from standard output, which is for results.

    HiGHS prints a debugging line whatever its options are (HiGHS.jl, issue 312).
    """
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
