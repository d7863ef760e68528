"""The best models within limits, best first: exactly by the NSR sum."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from deploy.compile.scheme import QuantizationScheme
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.search.candidate import Candidate
from nas.search.candidates import Limits
from nas.search.front import front
from nas.search.union import CostTables, k_best_of_schemes, limits_of_schemes


def ranked(
    context: Context, tables: Sequence[CostTables], limits: Limits, count: int
) -> Generator[Progress, None, list[Candidate]]:
    """Up to `count` models of all schemes together within `limits` of full networks, best first.

    Raises `ConfigError` naming the smallest if nothing fits.
    """
    yield from ()
    quantities = ["nsr", *(name for name in ("size", "latency") if name in limits)]
    every = [scheme.candidates(context.space, quantities) for scheme in tables]
    within = limits_of_schemes(tables, [front(each) for each in every], limits)
    several = len(tables) > 1
    return [
        Candidate(point.architecture, QuantizationScheme.parse(point.scheme) if several else None, point.costs[0])
        for point in k_best_of_schemes(tables, every, within, count)
    ]
