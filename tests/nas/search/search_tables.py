"""Small spaces, and tables with made-up numbers for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nas.estimate import Estimate
from nas.space import Block, Boundary, SearchSpace
from nas.table import Table


def space_of(layers: Sequence[int], bits: tuple[int, ...]) -> SearchSpace:
    blocks = tuple(Block(1, 8, n, n) for n in layers)
    return SearchSpace("tiny", 8, 8, blocks, kernels=(3,), expansions=(3, 6), bits=bits)


def tables_of(space: SearchSpace, quantities: Sequence[str], seed: int, levels: int) -> list[Table]:
    """Whole numbers below `levels`: few levels make many ties."""
    rng = np.random.default_rng(seed)
    return [
        Table(
            name,
            "u",
            {s: Estimate.exact(float(rng.integers(levels))) for s in space.all_subnets()},
            {"space": space.digest},
        )
        for name in quantities
    ]


def fractional_tables_of(space: SearchSpace, quantities: Sequence[str], seed: int) -> list[Table]:
    """Numbers whose sums are rounded."""
    rng = np.random.default_rng(seed)
    return [
        Table(name, "u", {s: Estimate.exact(float(rng.random())) for s in space.all_subnets()}, {"space": space.digest})
        for name in quantities
    ]


def with_interactions(space: SearchSpace, table: Table, seed: int, share: float, levels: int) -> Table:
    """Terms at a share of the boundaries, of either sign; whole numbers, or where there are no levels fractions."""
    rng = np.random.default_rng(seed)
    interactions = {}
    for block in range(1, len(space.blocks)):
        for last in space.choices:
            for first in space.choices:
                value = float(rng.integers(-levels, levels + 1)) if levels else float(rng.normal())
                if rng.random() < share:
                    interactions[Boundary(block, last, first)] = Estimate.exact(value)
    return replace(table, interactions=interactions)
