"""The hypervolume of a Pareto front: the area that it dominates (Zitzler and Thiele 1998), for two objectives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError

Costs = NDArray[np.float64]


def hypervolume(costs: Costs, reference: NDArray[np.float64]) -> float:
    """The area between rows of `costs` (n, 2), to be minimised, and `reference` (2,); rows beyond it add nothing.

    Raises `ConfigError` for other than two objectives.
    """
    if costs.ndim != 2 or costs.shape[1] != 2 or reference.shape != (2,):
        raise ConfigError(f"hypervolume of {costs.shape} costs: it is computed for two objectives")
    inside = costs[(costs < reference).all(axis=1)]
    ordered = inside[np.lexsort((inside[:, 1], inside[:, 0]))]
    lowest = np.minimum.accumulate(np.r_[reference[1], ordered[:, 1]])
    drops = lowest[:-1] - lowest[1:]
    return float(((reference[0] - ordered[:, 0]) * drops).sum())
