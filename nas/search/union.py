"""One search over several quantization schemes: tables that do not mix within a network, among which one is chosen.

Each scheme has tables of its own, and what lies outside the blocks costs differently. Schemes are searched exactly, one
by one, and compared as full networks, so the union is exact too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nas.errors import ConfigError
from nas.search.budgets import limits_within
from nas.search.candidates import Candidates, Limits, candidates
from nas.search.front import Front, front
from nas.search.k_best import k_best
from nas.search.pareto import undominated
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table

Pick = Callable[[Front, Limits], Architecture]


@dataclass(frozen=True, eq=False)
class CostTables:
    """The additive tables of one quantization scheme.

    Attributes:
        name: of the scheme.
        tables: by quantity.
        outside: by quantity, what the stem, the head and the rest outside the blocks cost, in the table's unit.
        allowed: which subnets may be chosen; None: all.
        teacher: by quantity, the whole teacher's cost, in the table's unit; nothing where it is not known.
    """

    name: str
    tables: Mapping[str, Table]
    outside: Mapping[str, float] = field(default_factory=dict)
    allowed: Callable[[Subnet], bool] | None = None
    teacher: Mapping[str, float] = field(default_factory=dict)

    def with_bits(self, bits: Sequence[int] | None) -> CostTables:
        """Of subnets that have one of these widths alone; None: any."""
        if bits is None:
            return self
        allowed = self.allowed
        return replace(self, allowed=lambda subnet: subnet.bits in bits and (allowed is None or allowed(subnet)))

    def candidates(self, space: SearchSpace, quantities: Sequence[str]) -> Candidates:
        return candidates(space, [self.tables[name] for name in quantities], self.allowed)

    def full(self, quantity: str, value: float) -> float:
        """A full network's cost, from the sum over its blocks."""
        return value + self.outside.get(quantity, 0.0)

    def total(self, quantity: str, architecture: Architecture) -> float:
        return self.full(quantity, self.tables[quantity].total(architecture))

    def point(self, architecture: Architecture, quantities: Sequence[str], costs: Sequence[float]) -> Point:
        """From sums over the blocks."""
        full = tuple(self.full(name, value) for name, value in zip(quantities, costs, strict=True))
        return Point(self.name, architecture, full)


@dataclass(frozen=True)
class Point:
    """An architecture under a scheme, with a full network's costs in the order of the quantities."""

    scheme: str
    architecture: Architecture
    costs: tuple[float, ...]


def union_front(schemes: Sequence[CostTables], fronts: Sequence[Front]) -> list[Point]:
    """The Pareto front over all schemes' fronts; of equal costs the first scheme's."""
    points = [
        tables.point(architecture, own.objectives, costs)
        for tables, own in zip(schemes, fronts, strict=True)
        for architecture, costs in zip(own.architectures, own.costs.tolist(), strict=True)
    ]
    if len(schemes) == 1:
        return points  # a front already, and adding what lies outside may round two sums to one
    return [points[i] for i in undominated(np.array([point.costs for point in points]))]


def limits_of_schemes(
    schemes: Sequence[CostTables], fronts: Sequence[Front], budgets: Limits, whose: str = ""
) -> list[Limits | None]:
    """Each scheme's limits on sums over blocks, None where nothing fits; `ConfigError` if nothing fits any scheme."""
    limits: list[Limits | None] = []
    refused: list[str] = []
    for tables, own in zip(schemes, fronts, strict=True):
        subject = whose if len(schemes) == 1 else f"{tables.name}: "
        try:
            limits.append(limits_within(own, budgets, tables.outside, subject))
        except ConfigError as error:
            limits.append(None)
            refused.append(str(error))
    if len(refused) == len(schemes):
        raise ConfigError(refused[0] if len(schemes) == 1 else f"{whose}no scheme has a model: {'; '.join(refused)}")
    return limits


def best_within(
    space: SearchSpace, schemes: Sequence[CostTables], budgets: Limits, whose: str = "", pick: Pick = Front.best
) -> tuple[CostTables, Architecture, int]:
    """The scheme and the architecture of the least NSR within budgets of full networks, and the length of its front.

    Of equal NSRs the first scheme's. Raises `ConfigError`, beginning with `whose`, if no scheme has a model that fits.
    """
    quantities = ["nsr", *(name for name in ("size", "latency") if name in budgets)]
    fronts = [front(tables.candidates(space, quantities)) for tables in schemes]
    limits = limits_of_schemes(schemes, fronts, budgets, whose)
    picked = [
        (tables, pick(own, within), len(own))
        for tables, own, within in zip(schemes, fronts, limits, strict=True)
        if within is not None
    ]
    return min(picked, key=lambda choice: choice[0].total("nsr", choice[1]))


def k_best_of_schemes(
    schemes: Sequence[CostTables], of: Sequence[Candidates], limits: Sequence[Limits | None], k: int
) -> list[Point]:
    """The k least first objectives over all schemes; `limits` as `limits_of_schemes` gives them."""
    points = [
        tables.point(ranked.architecture, candidates.objectives, ranked.costs)
        for tables, candidates, within in zip(schemes, of, limits, strict=True)
        if within is not None
        for ranked in k_best(candidates, within, k)
    ]
    return points if len(schemes) == 1 else sorted(points, key=lambda point: point.costs)[:k]
