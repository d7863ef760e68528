"""Where the errors of a table's sums come from: the choice, or the block boundary, that the residuals follow.

Residuals of full networks are compared with which choice, kernel or expansion each layer has, and with which two meet
at each block boundary (`deploy.latency.effects`). A uniform share, as of a board that became slower, counts as neither.
What a choice at the end of a block does may be its neighbour's doing; so it names the boundary to measure there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product

import numpy as np

from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.effects import effects
from deploy.latency.features import Vector
from deploy.run.records import Repair, Suspect
from nas.space import Architecture, Choice, SearchSpace

FEWEST = 3  # networks with and without: one alone may be an outlier


def boundary_name(space: SearchSpace, boundary: int) -> str:
    """`stem|b1`, `b1|b2`, ..., `b6|head` of boundary 0, 1, ..., the number of blocks."""
    before = f"b{boundary}" if boundary else "stem"
    return f"{before}|{f'b{boundary + 1}' if boundary < len(space.blocks) else 'head'}"


def boundary_number(space: SearchSpace, name: str) -> int:
    return [boundary_name(space, i) for i in range(len(space.blocks) + 1)].index(name)


def suspects(space: SearchSpace, networks: Sequence[MeasuredNetwork], seed: int = 0) -> tuple[Suspect, ...]:
    """The choices and boundaries that the networks' residuals follow, largest first; none if noise explains them."""
    architectures = [network.architecture for network in networks]
    columns = {
        name: column
        for name, column in _columns(architectures).items()
        if FEWEST <= np.count_nonzero(column) <= len(networks) - FEWEST
    }
    if not columns:
        return ()
    additive, measured = (np.array([getattr(n, name) for n in networks]) for name in ("additive_us", "measured_us"))
    base = np.column_stack([np.ones(len(networks)), additive / additive.mean()])
    found = effects(measured - additive, base, columns, measured / measured.mean(), seed)
    return tuple(
        Suspect(
            where=name,
            effect_us=float(size),
            effect_percent=float(100 * size / measured.mean()),
            p_value=p,
            models=int(columns[name].sum()),
            boundaries=tuple(boundary_name(space, i) for i in _boundaries_of(space, name)),
        )
        for name, size, p in zip(found.names, found.sizes, found.p_values, strict=True)
    )


def suspect_text(suspect: Suspect) -> str:
    """One line: what the errors follow, how much, and what to measure."""
    found = f"{suspect.where} ({suspect.models} models): {suspect.effect_us:+.0f} us, {suspect.effect_percent:+.1f} %"
    if not suspect.boundaries:
        return f"{found}, p {suspect.p_value:.2g}: inside a block, measure longer ([profile] runs, rounds)"
    across = " and ".join(suspect.boundaries)
    return f"{found}, p {suspect.p_value:.2g}: measure blocks across {across} (`hilnas lut latency --repair`)"


def repair_text(repair: Repair) -> str:
    """One line: what was measured, what it took, what was found."""
    found = ", ".join(f"{where} {us:+.0f} us" for where, us in repair.effects_us.items())
    return (
        f"{repair.graphs} pairs across {' and '.join(repair.boundaries)} in {repair.board_s:.1f} s of board time: "
        f"{found}; tau-b before {repair.tau_b_before:.4f}"
    )


def parts(choice: Choice) -> tuple[str, str, str]:
    """What of a choice may matter: its expansion, its kernel, both."""
    return f"e{choice.expansion}", f"k{choice.kernel}", str(choice)


def meeting(last: Choice, first: Choice) -> Iterator[str]:
    """What of two choices that meet may matter: `e6|k7`, ..."""
    return ("|".join(pair) for pair in product(parts(last), parts(first)))


def features_of(last: Choice | None, first: Choice | None) -> list[str]:
    """`e6|` of the last layer before a boundary, `|k7` of the first after it, `e6|k7` of both."""
    before = [f"{part}|" for part in parts(last)] if last else []
    after = [f"|{part}" for part in parts(first)] if first else []
    return [*before, *after, *(meeting(last, first) if last and first else ())]


def _columns(architectures: Sequence[Architecture]) -> Mapping[str, Vector]:
    """(n,) 1 where an architecture has the feature: single layers first, so that these are named of what is alike."""
    rows: dict[str, dict[int, float]] = {}
    for features in (_of_layers, _of_boundaries):
        for i, architecture in enumerate(architectures):
            for name in features(architecture):
                rows.setdefault(name, {})[i] = 1.0
    return {name: np.array([row.get(i, 0.0) for i in range(len(architectures))]) for name, row in rows.items()}


def _of_layers(architecture: Architecture) -> Iterator[str]:
    """`b1/0 e6`: a block's layers are numbered from 0."""
    for subnet in architecture.subnets:
        for i, choice in enumerate(subnet.choices):
            yield from (f"b{subnet.block}/{i} {part}" for part in parts(choice))


def _of_boundaries(architecture: Architecture) -> Iterator[str]:
    """`b1|b2 e6|k7`."""
    for before, after in pairwise(architecture.subnets):
        for met in meeting(before.choices[-1], after.choices[0]):
            yield f"b{before.block}|b{after.block} {met}"


def _boundaries_of(space: SearchSpace, name: str) -> list[int]:
    """The boundaries at which a feature lies; none of a layer inside its block."""
    place, _, _ = name.partition(" ")
    if "|" in place:
        return [boundary_number(space, place)]
    block, layer = map(int, place[1:].split("/"))
    ends = {0: block - 1, space.blocks[block - 1].layers - 1: block}
    if space.blocks[block - 1].layers == 1:
        return [block - 1, block]
    return [ends[layer]] if layer in ends else []
