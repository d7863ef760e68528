"""The refinement: measured accuracy of policies near the program's solution (LCPAQ, section 3; HAWQ-V2, section 3.2).

A perturbation is only a proxy. So the exact frontier of (perturbation, size, bit operations, latency) is computed near
the program's solution, its best policies by perturbation are scored as quantized networks, and the best score is kept.

Unpublished, chosen here: how near (`factor`), how many are scored, and that they are selected by perturbation and
differ from each other in a few layers (`APART`): near-copies would have similar scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from nas.errors import ConfigError
from nas.lcpaq.policy import Options, Policy
from nas.lcpaq.program import prices, solve, totals
from nas.lcpaq.tied import Limits, Tied, Vector, tied
from nas.search.pareto import Costs, Indices, undominated

FACTOR = 1.1
APART = 3
MOST_ROWS = 50_000
SLACK = 1e-9  # bounds on partial sums leave room for rounding; full sums are compared without it

Score = Callable[[Policy], float]
"""The quality of the quantized network, more is better."""


@dataclass(frozen=True, eq=False)
class Frontier:
    """The Pareto-optimal policies within the limits and `factor`, by perturbation.

    Attributes:
        of: the choices.
        taken: (n, groups), rows of each group's choices.
        costs: (n, objectives), in lexical order.
        factor: the frontier is complete up to this many times the program's perturbation. It is less than requested
            where there would have been too many policies.
    """

    of: Tied
    taken: Indices
    costs: Costs
    factor: float

    def __len__(self) -> int:
        return len(self.costs)

    def best(self, k: int, apart: int = 1) -> list[Policy]:
        """Up to k of the least perturbation, each different from those before in at least `apart` groups."""
        kept: list[Indices] = []
        for row in self.taken:
            if len(kept) == k:
                break
            if all((row != other).sum() >= apart for other in kept):
                kept.append(row)
        return [self.of.policy(row.tolist()) for row in kept]


@dataclass(frozen=True)
class Scored:
    """A scored policy; `origin` is program, greedy or frontier, of several origins the first."""

    origin: str
    policy: Policy
    costs: dict[str, float]
    score: float
    done: int
    total: int


def refine(options: Options, limits: Limits, score: Score, k: int = 8, factor: float = FACTOR) -> Iterator[Scored]:
    """Score the program's solution, that of greedy descent and the k best of the frontier; `best` chooses.

    Raises `ConfigError` where nothing fits the limits, or a score is not a number.
    """
    proposed = proposals(options, limits, k, factor)
    for done, (origin, policy) in enumerate(proposed, 1):
        value = score(policy)
        if math.isnan(value):
            raise ConfigError(f"policy '{policy}' scores nan: see that the network and its images are sound")
        yield Scored(origin, policy, totals(options, policy), value, done, len(proposed))


def best(scored: Iterable[Scored]) -> Scored:
    """The highest score; of equal ones the least perturbation, then the first."""
    return max(scored, key=lambda s: (s.score, -next(iter(s.costs.values()))))


def proposals(options: Options, limits: Limits, k: int = 8, factor: float = FACTOR) -> list[tuple[str, Policy]]:
    """(origin, policy), each policy once; without greedy descent where it ends above the limits."""
    if k < 1 or not factor >= 1:
        raise ConfigError(f"refine the {k} best up to {factor:g} times the perturbation: give at least 1 of each")
    solution = solve(options, limits)
    proposed = [("program", solution)]
    with suppress(ConfigError):  # the solution shows that the limits can be met, perhaps not by greedy descent
        proposed.append(("greedy", greedy(options, limits)))
    proposed += [("frontier", policy) for policy in frontier(options, limits, factor).best(k, APART)]
    unique: dict[str, tuple[str, Policy]] = {}
    for origin, policy in proposed:
        unique.setdefault(str(policy), (origin, policy))
    return list(unique.values())


def greedy(options: Options, limits: Limits) -> Policy:
    """From the widest choices, always the narrowing with the least perturbation per saved bit, until the limits hold.

    Savings count for the limits that do not hold yet, each as a share of the limit. `ConfigError` where no narrowing
    helps any more.
    """
    of = tied(options)
    within = of.limit_vector(limits)
    choices = [
        [options.choices[group[0]][row] for row in rows[:, 0]] for group, rows in zip(of.members, of.rows, strict=True)
    ]
    taken = [each.index(max(each)) for each in choices]
    while (over := of.total(taken) > within).any():
        moves = []
        for group, (each, costs, now) in enumerate(zip(choices, of.costs, taken, strict=True)):
            for row, (weights, activations) in enumerate(each):
                less = costs[now] - costs[row]
                saved = float((less[over] / within[over]).sum())
                if weights <= each[now][0] and activations <= each[now][1] and saved > 0:
                    moves.append((-float(less[0]) / saved, group, row))
        if not moves:
            names = ", ".join(name for name, above in zip(of.objectives, over, strict=True) if above)
            raise ConfigError(f"greedy descent ends above the limit on {names}: solve instead, or give more")
        _, group, row = min(moves)
        taken[group] = row
    return of.policy(taken)


def frontier(options: Options, limits: Limits, factor: float = FACTOR) -> Frontier:
    """The exact frontier within `limits`, up to `factor` times the perturbation of the program's solution.

    Groups are merged one by one as in `nas.search.front`. A partial sum is discarded when it is dominated, or when no
    completion can be within the limits and the perturbation; where more than `MOST_ROWS` remain, the factor is reduced
    until half of them remain.
    """
    of = tied(options).pruned()
    least = float(options.total(of.objectives[0], options.rows(solve(options, limits))))
    reach = _Reach.of(of, of.limit_vector(limits))
    of = reach.tied
    varying = [0, *(j for j in range(1, len(of.objectives)) if any(np.ptp(costs[:, j]) > 0 for costs in of.costs))]
    most = least + (factor - 1) * abs(least)
    taken, sums = np.zeros((1, 0), np.int64), np.zeros((1, len(of.objectives)))
    for group, costs in enumerate(of.costs):
        merged = (sums[:, None] + costs).reshape(-1, len(of.objectives))
        reached = reach.perturbation(merged, group)
        rows = np.flatnonzero(reached <= most)
        rows = rows[undominated(merged[rows][:, varying])]
        if len(rows) > MOST_ROWS:
            most = max(least, float(np.partition(reached[rows], MOST_ROWS // 2)[MOST_ROWS // 2]))
            rows = rows[reached[rows] <= most]
        taken, sums = np.column_stack([taken[rows // len(costs)], rows % len(costs)]), merged[rows]
    kept = (sums <= reach.within).all(axis=1) & (sums[:, 0] <= most + SLACK * abs(most))
    return Frontier(of, taken[kept], sums[kept], 1 + (most - least) / abs(least) if least else factor)


@dataclass(frozen=True, eq=False)
class _Reach:
    """Bounds on the completions of sums over the first groups.

    Attributes:
        tied: the choices, with the groups in the order of merging.
        within: (objectives,) the limits.
        worth: (objectives,) 1 for the perturbation, the prices for the others: their sum bounds the perturbation.
        rest: (groups, objectives + 1), the least that the groups after each add to each objective, and to their worth.
    """

    tied: Tied
    within: Vector
    worth: Vector
    rest: Costs

    @classmethod
    def of(cls, of: Tied, within: Vector) -> _Reach:
        """With the groups of the largest differences first, so that the bounds discard early."""
        worth = prices(of, within)
        worth[0] = 1.0
        differences = [float(np.ptp(costs @ worth)) for costs in of.costs]
        of = of.ordered(np.argsort(differences)[::-1].tolist())
        least = np.array([[*costs.min(axis=0), (costs @ worth).min()] for costs in of.costs])
        return cls(of, within, worth, np.cumsum(least[::-1], axis=0)[::-1] - least)

    def perturbation(self, sums: Costs, group: int) -> Vector:
        """A lower bound on the perturbation once the groups after `group` are added; infinite above a limit."""
        limited = np.isfinite(self.within)
        limited[0] = False
        paid = float(self.within[limited] @ self.worth[limited])
        rest = self.rest[group]
        bound = np.maximum(sums[:, 0] + rest[0], sums @ self.worth + rest[-1] - paid)
        bound -= SLACK * (np.abs(bound) + paid)
        above = (sums + rest[:-1] > self.within * (1 + SLACK)).any(axis=1)
        return np.where(above, np.inf, bound)
