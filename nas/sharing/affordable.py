"""The architectures of a space within limits: membership and random members."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from nas.errors import ConfigError
from nas.search.candidates import Candidates, Limits
from nas.space import Architecture, SearchSpace

TRIES = 1000  # uniform draws before a tight limit is met block by block


class Affordable:
    """The architectures of `space` that cost at most `limits`, by the costs in `of`.

    Raises `ConfigError`, naming the smallest, if a limit is below the smallest architecture.

    Attributes:
        space: with those bit widths alone that `of` has.
    """

    def __init__(self, space: SearchSpace, of: Candidates, limits: Limits) -> None:
        of.check_reachable(limits)
        widths = {subnet.bits for block in of.subnets for subnet in block}
        self.space = replace(space, bits=tuple(bits for bits in space.bits if bits in widths))
        self._of, self._limits = of, limits
        self._within = of.limit_vector(limits)
        self._cost = {s: row for block in zip(of.subnets, of.costs, strict=True) for s, row in zip(*block, strict=True)}

    def __contains__(self, architecture: Architecture) -> bool:
        total = np.zeros(len(self._within))
        for subnet in architecture.subnets:
            total += self._cost[subnet]
        return bool((total <= self._within).all())

    def sample(self, rng: random.Random) -> Architecture:
        """A random member: uniform where one in hundreds fits, else uniform block by block within the remaining budget.

        Raises `ConfigError` where both fail, as two tight limits together may leave no member.
        """
        for draw in (self.space.sample, self._within_room):
            for _ in range(TRIES):
                drawn = draw(rng)
                if drawn is not None and drawn in self:
                    return drawn
        wanted = ", ".join(f"{quantity} {limit:.6g}" for quantity, limit in self._limits.items())
        raise ConfigError(f"none of {2 * TRIES} random architectures is within {wanted}; loosen a budget")

    def _within_room(self, rng: random.Random) -> Architecture | None:
        """Blocks in random order, each drawn from the subnets that leave room for the cheapest of the others."""
        room = self._within - self._of.least()
        row = [0] * len(self._of.subnets)
        for block in rng.sample(range(len(row)), len(row)):
            costs = self._of.costs[block]
            surplus = costs - costs.min(axis=0)
            fitting = np.flatnonzero((surplus <= room).all(axis=1)).tolist()
            if not fitting:
                return None
            row[block] = rng.choice(fitting)
            room = room - surplus[row[block]]
        return self._of.architecture(row)
