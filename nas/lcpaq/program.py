"""The hardware-aware module: each layer's bits by integer programming (LCPAQ, section 3; HAWQ-V3, section 3.4).

Minimise the summed perturbation over one binary variable per layer and choice, one choice taken of each layer, under
limits on size, bit operations and latency, or some of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nas.errors import ConfigError
from nas.lcpaq.knapsack import Indices, Knapsack, least, least_share, limit_prices
from nas.lcpaq.policy import Options, Policy
from nas.lcpaq.tied import Limits, Tied, Vector, tied


def solve(options: Options, limits: Limits) -> Policy:
    """The policy of the least summed perturbation (the first objective) within `limits`, exactly.

    Raises `ConfigError` that names the smallest relaxation that helps if nothing fits (`relaxations`).
    """
    of = tied(options).pruned()
    within = of.limit_vector(limits)
    taken = _least(of, 0, within)
    if taken is None:
        raise ConfigError(_nothing_fits(limits, relaxations(options, limits)))
    return of.policy(taken.tolist())


def totals(options: Options, policy: Policy) -> dict[str, float]:
    """What a policy costs, by objective; `ConfigError` naming a layer whose bits are no choice of `options`."""
    rows = options.rows(policy)
    return {name: options.total(name, rows) for name in options.costs}


def relaxations(options: Options, limits: Limits) -> list[dict[str, float]]:
    """For limits that no policy fits, larger values that would help; each dictionary is one possibility.

    A single limit is raised to the least value reachable within the others. Where raising one limit does not help, all
    that are exceeded are raised together, by the smallest possible share of themselves.
    """
    of = tied(options).pruned()
    within = of.limit_vector(limits)
    ways = []
    for name in limits:
        which = of.objectives.index(name)
        taken = _least(of, which, np.where(np.arange(len(within)) == which, np.inf, within))
        if taken is not None:
            ways.append({name: float(of.total(taken.tolist())[which])})
    if ways:
        return ways
    problem = _knapsack(of, 0, within)
    reached = of.total(_rows_of(problem, least_share(problem)).tolist())
    raised = {name: float(reached[of.objectives.index(name)]) for name in limits}
    return [{name: value for name, value in raised.items() if value > within[of.objectives.index(name)]}]


def prices(of: Tied, within: Vector) -> Vector:
    """The dual price, in perturbation, of a unit of each objective at the limits, (objectives,): 0 if not limited.

    From the linear relaxation: the perturbation plus the priced costs bounds that of any policy.
    """
    worth = np.zeros(len(within))
    worth[np.isfinite(within)] = limit_prices(_knapsack(of, 0, within))
    return worth


def _least(of: Tied, objective: int, within: Vector) -> Indices | None:
    """The choice of each group with the least summed `objective`; None if nothing fits."""
    problem = _knapsack(of, objective, within)
    taken = least(problem)
    return None if taken is None else _rows_of(problem, taken)


def _knapsack(of: Tied, objective: int, within: Vector) -> Knapsack:
    costs = np.concatenate(of.costs)
    limited = np.flatnonzero(np.isfinite(within))
    group = np.repeat(np.arange(len(of.costs)), [len(c) for c in of.costs])
    return Knapsack(group, costs[:, objective], costs[:, limited].T, within[limited])


def _rows_of(problem: Knapsack, taken: Indices) -> Indices:
    return taken - problem.starts


def _nothing_fits(limits: Limits, ways: list[dict[str, float]]) -> str:
    wanted = " and ".join(f"{name} {limit:.6g}" for name, limit in limits.items())
    one_of = ", or ".join(" and ".join(_more(name, value, limits) for name, value in way.items()) for way in ways)
    return f"no policy fits {wanted}: give {one_of}"


def _more(name: str, value: float, limits: Mapping[str, float]) -> str:
    return f"{name} {rounded_up(value)} ({100 * (value / limits[name] - 1):.2g} % more)"


def rounded_up(value: float, digits: int = 6) -> str:
    """The value with that many significant digits, rounded up."""
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return f"{math.ceil(value / unit) * unit:.{digits}g}"
