"""Budgets as they are written: `250kB`, `3.5ms`, or `75%` of the teacher."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nas.errors import ConfigError
from nas.search.candidates import Limits
from nas.search.front import Front

UNITS: Mapping[str, Mapping[str, float]] = {
    "size": {"bits": 1.0, "B": 8.0, "kB": 8e3, "MB": 8e6},
    "latency": {"us": 1.0, "ms": 1e3, "s": 1e6},
}
SHOWN = {"size": "kB", "latency": "ms"}
_AMOUNT = re.compile(r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?) ?([A-Za-z]+|%)")


@dataclass(frozen=True)
class Amount:
    """One budget.

    Attributes:
        quantity: a key of `UNITS`.
        value: in the table's unit (bits, us), or as a share of the teacher's.
        share: whether it is a share.
    """

    quantity: str
    value: float
    share: bool

    @classmethod
    def parse(cls, text: str, quantity: str) -> Amount:
        """`ConfigError` for anything but a positive number with a unit of the quantity, or with %."""
        units = UNITS[quantity]
        match = _AMOUNT.fullmatch(text)
        number, unit = (float(match[1]), match[2]) if match else (math.nan, "")
        if not (0 < number < math.inf and unit in {*units, "%"}):
            raise ConfigError(
                f"--{quantity}-budget {text}: give a positive number with a unit ({', '.join(units)}), "
                f"or with % for a share of the teacher's"
            )
        return cls(quantity, number / 100 if unit == "%" else number * units[unit], unit == "%")

    def of_teacher(self, teacher: float | None) -> float:
        """The amount in the table's unit; `ConfigError` for a share where the teacher's cost is not known."""
        if not self.share:
            return self.value
        if teacher is None:
            raise ConfigError(
                f"--{self.quantity}-budget {100 * self.value:g}%: tables without a run have no teacher; "
                f"give {' or '.join(UNITS[self.quantity])}"
            )
        return self.value * teacher


def limits_within(front: Front, budgets: Limits, outside: Limits, whose: str = "") -> Limits:
    """Budgets of full networks, which cost `outside` besides their blocks, as limits on sums over blocks.

    Raises `ConfigError`, beginning with `whose`, that names the smallest model if none fits.
    """
    limits = {name: budget - outside.get(name, 0.0) for name, budget in budgets.items()}
    within = front.pruned.limit_vector(limits)
    least = {name: float(front.costs[:, front.objectives.index(name)].min()) for name in limits}
    for name, limit in limits.items():
        if limit < least[name]:
            raise ConfigError(
                f"{whose}a {name} of {shown(name, budgets[name])} is below the smallest model's "
                f"{shown(name, least[name] + outside.get(name, 0.0))}; give more"
            )
    if not (front.costs <= within).all(axis=1).any():
        wanted = " and ".join(f"a {name} of {shown(name, budget)}" for name, budget in budgets.items())
        reached = []
        for name in limits:
            others = front.pruned.limit_vector({other: limit for other, limit in limits.items() if other != name})
            costs = front.costs[(front.costs <= others).all(axis=1), front.objectives.index(name)]
            if len(costs):
                reached.append(f"{name} {shown(name, float(costs.min()) + outside.get(name, 0.0))}")
        raise ConfigError(f"{whose}no model fits {wanted} together; the smallest within the rest: {', '.join(reached)}")
    return limits


def shown(quantity: str, value: float) -> str:
    """A value in the unit that messages use; other quantities as they are. `latency@npu` is a latency, on npu."""
    plain = quantity.partition("@")[0]
    if plain not in SHOWN:
        return f"{value:.4f}"
    return f"{value / UNITS[plain][SHOWN[plain]]:.3f} {SHOWN[plain]}"
