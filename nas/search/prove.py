"""A check on demand: the exact search against brute force on random sub-spaces of the given tables.

The front of the full space cannot be enumerated; it is compared with random architectures, none of which may dominate
it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from nas.search.brute_force import all_architectures, front_costs, k_best_by_all
from nas.search.candidates import Candidates, Limits, Ranked
from nas.search.front import Front, front
from nas.search.k_best import k_best
from nas.search.pareto import undominated

SUB_SPACES = 20
LARGEST = 3000  # architectures of a sub-space
LIMITS = 3  # random ones per sub-space
SAMPLED = 20_000


@dataclass(frozen=True)
class Proof:
    """What was compared, and the first difference; None if there was none."""

    sub_spaces: int
    architectures: int
    queries: int
    sampled: int
    difference: str | None

    @property
    def holds(self) -> bool:
        return self.difference is None


def prove(of: Candidates, full: Front, rng: random.Random, k: int = 5) -> Proof:
    """Fronts and the k best under random limits of random sub-spaces, then `full` (the front of `of`)."""
    architectures = queries = 0
    for number in range(1, SUB_SPACES + 1):
        sub = random_sub_space(of, rng)
        architectures += sub.count
        if not np.array_equal(front(sub).costs, front_costs(sub)):
            return Proof(number, architectures, queries, 0, f"the front of sub-space {number}")
        for limits in random_limits(sub, rng):
            queries += 1
            if not same_costs(k_best(sub, limits, k), k_best_by_all(sub, limits, k)):
                return Proof(number, architectures, queries, 0, f"the {k} best of sub-space {number} within {limits}")
    difference = _difference(of, full, rng)
    return Proof(SUB_SPACES, architectures, queries, SAMPLED, difference)


def random_sub_space(of: Candidates, rng: random.Random, largest: int = LARGEST) -> Candidates:
    """Some subnets of each block: in half of the blocks any, in the others from the block's Pareto front."""
    most = max(2, round(largest ** (1 / len(of.costs))))
    rows = []
    for costs in of.costs:
        pool = range(len(costs)) if rng.random() < 0.5 else undominated(costs).tolist()
        rows.append(np.array(sorted(rng.sample(pool, min(len(pool), rng.randint(1, most)))), np.int64))
    return of.subset(rows)


def random_limits(of: Candidates, rng: random.Random) -> list[Limits]:
    """Limits that some architecture just reaches."""
    drawn: list[Limits] = []
    choices, costs = all_architectures(of)
    for _ in range(LIMITS):
        bounds = costs[rng.randrange(len(choices))].tolist()
        names = rng.sample(of.objectives, rng.randint(1, len(of.objectives)))
        drawn.append({name: bounds[of.objectives.index(name)] for name in names})
    return drawn


def same_costs(a: list[Ranked], b: list[Ranked]) -> bool:
    """Equal costs in order, and as many different architectures; of two equal ones either may be taken."""
    return [r.costs for r in a] == [r.costs for r in b] and len({r.architecture for r in a}) == len(b)


def _difference(of: Candidates, full: Front, rng: random.Random) -> str | None:
    """Where the front's costs are not those of its architectures, or a random architecture is not dominated by it."""
    if not np.array_equal(full.pruned.totals(full.choices), full.costs):
        return "the costs of the full front"
    draws = np.random.default_rng(rng.getrandbits(64))
    choices = np.column_stack([draws.integers(len(costs), size=SAMPLED) for costs in of.costs])
    totals = of.totals(choices)
    both = np.concatenate([full.costs, totals])
    ahead = undominated(both)
    ahead = ahead[ahead >= len(full)]
    return f"{of.architecture(choices[ahead[0] - len(full)].tolist())} is ahead of the front" if len(ahead) else None
