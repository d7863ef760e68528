"""Options in a solver's form: layers that share their bits are one group, and each choice has a row of costs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError
from nas.lcpaq.policy import INT8, Options, Policy
from nas.search.pareto import Costs, Indices, undominated

Limits = Mapping[str, float]
"""The most that a policy may cost, by objective: {"size_bits": 2.1e6, "bops": 3e9}."""
Vector = NDArray[np.float64]

ROUNDING = 1e-12  # the same latencies, added up in another order, are the same


@dataclass(frozen=True, eq=False)
class Tied:
    """Groups of layers that choose together.

    Attributes:
        options: the choices of single layers.
        members: for each group the indices of its layers.
        rows: for each group (choices, members), which of each member's choices that is.
        costs: for each group (choices, objectives), summed over its members.
    """

    options: Options
    members: tuple[tuple[int, ...], ...]
    rows: tuple[Indices, ...]
    costs: tuple[Costs, ...]

    @property
    def objectives(self) -> tuple[str, ...]:
        return tuple(self.options.costs)

    def policy(self, taken: Sequence[int]) -> Policy:
        """The policy that takes row taken[i] of group i."""
        of_layer = {
            layer: int(row)
            for members, rows, i in zip(self.members, self.rows, taken, strict=True)
            for layer, row in zip(members, rows[i], strict=True)
        }
        return self.options.policy([of_layer[i] for i in range(len(of_layer))])

    def total(self, taken: Sequence[int]) -> Vector:
        """(objectives,)"""
        chosen = [costs[i] for costs, i in zip(self.costs, taken, strict=True)]
        return np.array([math.fsum(column) for column in zip(*chosen, strict=True)])

    def pruned(self) -> Tied:
        """Without choices that another one of the group dominates; of equal ones the first is kept."""
        kept = [np.sort(undominated(costs)) for costs in self.costs]
        return replace(
            self,
            rows=tuple(rows[k] for rows, k in zip(self.rows, kept, strict=True)),
            costs=tuple(costs[k] for costs, k in zip(self.costs, kept, strict=True)),
        )

    def ordered(self, groups: Sequence[int]) -> Tied:
        """The same groups in this order."""
        return replace(
            self,
            members=tuple(self.members[i] for i in groups),
            rows=tuple(self.rows[i] for i in groups),
            costs=tuple(self.costs[i] for i in groups),
        )

    def limit_vector(self, limits: Limits) -> Vector:
        """The limits in the order of the objectives, infinite where none is given; `ConfigError` for a bad one."""
        for name, limit in limits.items():
            if name not in self.objectives:
                has = ", ".join(self.objectives[1:])
                raise ConfigError(f"no limit on {name}: these options have {has}; measure or leave it out")
            if not limit > 0:
                raise ConfigError(f"the limit on {name} is {limit:g}: give a positive number")
        return np.array([limits.get(name, np.inf) * (1 + ROUNDING) for name in self.objectives])


def tied(options: Options) -> Tied:
    """Groups in the order of their first layers; `ConfigError` where one shares no bits or a layer is in two."""
    number = {layer.name: i for i, layer in enumerate(options.layers)}
    named = [number[name] for group in options.groups for name in group]
    if len(set(named)) < len(named):
        twice = next(i for i in named if named.count(i) > 1)
        raise ConfigError(f"ties: layer '{options.layers[twice].name}' is named twice; name it in one group")
    groups = [tuple(sorted(number[name] for name in group)) for group in options.groups]
    members = sorted([*groups, *((i,) for i in range(len(options.layers)) if i not in named)])
    rows = tuple(_shared(options, group) for group in members)
    costs = tuple(_summed(options, group, of) for group, of in zip(members, rows, strict=True))
    return Tied(options, tuple(members), rows, costs)


def _shared(options: Options, group: Sequence[int]) -> Indices:
    """The choices that all of a group have, (choices, members)."""
    first, *others = (options.choices[i] for i in group)
    shared = [choice for choice in first if all(choice in other for other in others)]
    if not shared:
        names = ", ".join(options.layers[i].name for i in group)
        raise ConfigError(f"layers {names} must share their bits, and no choice is common to all of them")
    return np.array([[options.choices[i].index(choice) for i in group] for choice in shared], np.int64)


def _summed(options: Options, group: Sequence[int], rows: Indices) -> Costs:
    """(choices, objectives)"""
    return np.column_stack(
        [sum(by_layer[i][of] for i, of in zip(group, rows.T, strict=True)) for by_layer in options.costs.values()]
    )


def ends_exempt(options: Options) -> Options:
    """The first and the last layer keep 8 bits, of weights and of inputs (HAWQ-V3, section 4).

    Raises `ConfigError` where one of them has no such choice.
    """
    return kept_at_8(options, {0, len(options.choices) - 1})


def kept_at_8(options: Options, layers: Collection[int]) -> Options:
    """These layers (by index) keep 8 bits, of weights and of inputs; else as `ends_exempt`.

    The layers tied to them are then free, as the program no longer chooses for the group; but not where activations may
    have fewer bits, since layers that read one tensor share its bits.
    """
    kept = {options.layers[i].name for i in layers}
    narrow = any(activations != INT8 for of in options.choices for _, activations in of)
    left = options.groups if narrow else [tuple(name for name in group if name not in kept) for group in options.groups]
    choices = list(options.choices)
    costs = {name: list(by_layer) for name, by_layer in options.costs.items()}
    for i in layers:
        if (INT8, INT8) not in choices[i]:
            raise ConfigError(f"layer '{options.layers[i].name}' is to keep 8 bits, which is none of its choices")
        row = choices[i].index((INT8, INT8))
        choices[i] = ((INT8, INT8),)
        for by_layer in costs.values():
            by_layer[i] = by_layer[i][row : row + 1]
    return replace(
        options,
        choices=tuple(choices),
        costs={name: tuple(rows) for name, rows in costs.items()},
        groups=tuple(group for group in left if len(group) > 1),
    )
