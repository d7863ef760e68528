"""The slow and obvious search: every architecture of a small space. The other searches are checked against it."""

from __future__ import annotations

import numpy as np

from nas.errors import ConfigError
from nas.search.candidates import Candidates, Choices, Limits, Ranked
from nas.search.pareto import Costs, Indices

MOST = 20_000_000


def all_architectures(of: Candidates) -> tuple[Choices, Costs]:
    """Every architecture in the order of the space, and its costs; `ConfigError` where there are too many."""
    if of.count > MOST:
        raise ConfigError(f"brute force over {of.count:.3g} architectures: at most {MOST}; take a smaller space")
    shape = [len(costs) for costs in of.costs]
    choices = np.stack(np.unravel_index(np.arange(of.count), shape), axis=1).astype(np.int64)
    return choices, of.totals(choices)


def undominated_by_pairs(costs: Costs) -> Indices:
    """Indices of the rows that no other dominates (at most equal everywhere, less somewhere); equal rows all stay."""
    kept = []
    for i, row in enumerate(costs):
        dominates = (costs <= row).all(axis=1) & (costs < row).any(axis=1)
        if not dominates.any():
            kept.append(i)
    return np.array(kept, np.int64)


def front_costs(of: Candidates) -> Costs:
    """The distinct costs on the Pareto front, in lexical order."""
    _, costs = all_architectures(of)
    front: Costs = np.unique(costs[undominated_by_pairs(costs)], axis=0)
    return front


def k_best_by_all(of: Candidates, limits: Limits, k: int) -> list[Ranked]:
    """As `k_best`, empty where nothing fits; of equal costs the first in the order of the space."""
    choices, costs = all_architectures(of)
    fits = np.flatnonzero((costs <= of.limit_vector(limits)).all(axis=1))
    best = fits[np.lexsort(costs[fits].T[::-1])[:k]]
    return [Ranked(of.architecture(choices[i].tolist()), tuple(costs[i].tolist())) for i in best]
