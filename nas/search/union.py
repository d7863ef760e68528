"""One search over several sides: tables that do not mix within a model, but among which a model may be chosen.

Each way to quantize a whole model has tables of its own, and what lies around its blocks costs otherwise. Sides are
searched exactly one by one and compared as whole models, so the union is exact too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
class Side:
    """The tables by quantity, and what lies around the blocks in the same units; `allowed`: None allows all subnets."""

    name: str
    tables: Mapping[str, Table]
    around: Mapping[str, float]
    allowed: Callable[[Subnet], bool] | None = None

    def candidates(self, space: SearchSpace, quantities: Sequence[str]) -> Candidates:
        return candidates(space, [self.tables[name] for name in quantities], self.allowed)

    def whole(self, quantity: str, value: float) -> float:
        """A sum over blocks with what lies around them."""
        return value + self.around.get(quantity, 0.0)

    def total(self, quantity: str, architecture: Architecture) -> float:
        return self.whole(quantity, self.tables[quantity].total(architecture))

    def point(self, architecture: Architecture, quantities: Sequence[str], costs: Sequence[float]) -> Point:
        """From sums over the blocks."""
        whole = tuple(self.whole(name, value) for name, value in zip(quantities, costs, strict=True))
        return Point(self.name, architecture, whole)


@dataclass(frozen=True)
class Point:
    """An architecture of a side, with a whole model's costs in the order of the quantities."""

    side: str
    architecture: Architecture
    costs: tuple[float, ...]


def union_front(sides: Sequence[Side], fronts: Sequence[Front]) -> list[Point]:
    """The front of all sides' fronts; of equal costs the first side's."""
    points = [
        side.point(architecture, found.objectives, costs)
        for side, found in zip(sides, fronts, strict=True)
        for architecture, costs in zip(found.architectures, found.costs.tolist(), strict=True)
    ]
    if len(sides) == 1:
        return points  # a front already, and what was added may round two sums to one
    return [points[i] for i in undominated(np.array([point.costs for point in points]))]


def limits_of_sides(
    sides: Sequence[Side], fronts: Sequence[Front], budgets: Limits, whose: str = ""
) -> list[Limits | None]:
    """Each side's limits on sums over blocks, None for a side in which nothing fits; `ConfigError` if none is left."""
    found: list[Limits | None] = []
    refused: list[str] = []
    for side, whole in zip(sides, fronts, strict=True):
        try:
            found.append(limits_within(whole, budgets, side.around, whose if len(sides) == 1 else f"{side.name}: "))
        except ConfigError as error:
            found.append(None)
            refused.append(str(error))
    if len(refused) == len(sides):
        raise ConfigError(refused[0] if len(sides) == 1 else f"{whose}no scheme has a model: {'; '.join(refused)}")
    return found


def best_within(
    space: SearchSpace, sides: Sequence[Side], budgets: Limits, whose: str = "", pick: Pick = Front.best
) -> tuple[Side, Architecture, int]:
    """The side and the architecture of the least NSR within budgets of whole models, and the length of its front.

    Of equal NSRs the first side's. Raises `ConfigError`, beginning with `whose`, if no side has a model that fits.
    """
    quantities = ["nsr", *(name for name in ("size", "latency") if name in budgets)]
    fronts = [front(side.candidates(space, quantities)) for side in sides]
    limits = limits_of_sides(sides, fronts, budgets, whose)
    picked = [
        (side, pick(whole, within), len(whole))
        for side, whole, within in zip(sides, fronts, limits, strict=True)
        if within is not None
    ]
    return min(picked, key=lambda found: found[0].total("nsr", found[1]))


def k_best_of_sides(
    sides: Sequence[Side], of: Sequence[Candidates], limits: Sequence[Limits | None], k: int
) -> list[Point]:
    """The k least first objectives over all sides; `limits` as `limits_of_sides` gives them."""
    points = [
        side.point(ranked.architecture, candidates.objectives, ranked.costs)
        for side, candidates, within in zip(sides, of, limits, strict=True)
        if within is not None
        for ranked in k_best(candidates, within, k)
    ]
    return points if len(sides) == 1 else sorted(points, key=lambda point: point.costs)[:k]
