"""What a latency table learns from pairs of neighbours: terms of block boundaries, and entries beside stem and head.

    T(pair) - entries = constant + slope * entries + effects of the layers that meet + noise

The constant holds the graph's input and output, the slope a board whose speed changed since; neither changes a rank.
Effects count where they pass `deploy.latency.effects`. Between two blocks they are interactions, which no sum over
entries can hold; beside the stem or the head there is one neighbour for all, so they belong to the entries, and may
also grow with the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from deploy.latency.effects import Effects, effects
from deploy.latency.estimates import Z95, widened
from deploy.latency.features import Vector
from deploy.latency.overhead import FLOOR_US
from deploy.latency.pairs import BlockPair
from deploy.latency.suspects import boundary_name, features_of
from deploy.run.records import Repair
from hil.errors import CheckFailed
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.settings import build
from nas.space import Boundary, SearchSpace, Subnet
from nas.table import Table

REPAIRS = "repairs"
"""Where a table's provenance has the `Repair`s that it went through."""
GROWING = " by size"
FEWEST = 8  # pairs: of fewer, chance alone passes no test


@dataclass(frozen=True, eq=False)
class PairEffects:
    """What pairs across one boundary show beyond the table.

    Attributes:
        boundary: its number: 0 is the stem's, the number of blocks the head's.
        effects: by the features of what meets there, and growing with the blocks' entries.
        mean_us: the entries of a pair, on average.
        pairs: how many were measured.
    """

    boundary: int
    effects: Effects
    mean_us: float
    pairs: int

    @classmethod
    def fitted(cls, table: Table, boundary: int, measured: Mapping[BlockPair, Estimate], seed: int) -> PairEffects:
        """From the latencies of pairs, some; `CheckFailed` for too few."""
        if len(measured) < FEWEST:
            raise CheckFailed(
                f"{len(measured)} pairs across boundary {boundary} show nothing, {FEWEST} are needed: allow more board "
                "time (--repair TIME)"
            )
        entries = np.array([pair.entries_us(table) for pair in measured])
        latencies = np.array([latency.value for latency in measured.values()])
        sizes = entries / entries.mean()
        columns = _columns([features_of(pair.last, pair.first) for pair in measured])
        if any(len(pair.subnets) == 1 for pair in measured):
            columns |= {name + GROWING: column * (sizes - 1) for name, column in columns.items()}
        base = np.column_stack([np.ones(len(sizes)), sizes])
        found = effects(latencies - entries, base, columns, latencies / latencies.mean(), seed)
        return cls(boundary, found, float(entries.mean()), len(measured))

    def named_us(self, space: SearchSpace) -> dict[str, float]:
        """The effects by boundary and feature, as `stem|b1 e6`."""
        at = boundary_name(space, self.boundary)
        named = zip(self.effects.names, self.effects.sizes.tolist(), strict=True)
        return {f"{at} {name.strip('|') if self._at_an_end(space) else name}": us for name, us in named}

    def applied(self, space: SearchSpace, table: Table) -> Table:
        """The table with the effects: in its interactions, or beside stem and head in the entries."""
        if self._at_an_end(space):
            block = 1 if self.boundary == 0 else self.boundary
            entries = {s: self._beside_an_end(s, e) if s.block == block else e for s, e in table.entries.items()}
            return replace(table, entries=entries)
        terms = dict(table.interactions)
        for last, first in product(space.choices, repeat=2):
            us, error = self.effects.of(dict.fromkeys(features_of(last, first), 1.0))
            if error > 0:
                met = Boundary(self.boundary, last, first)
                us += table.interaction(met)
                terms[met] = Estimate(us, error, us - Z95 * error, us + Z95 * error, self.pairs, "measured")
        return replace(table, interactions=terms)

    def _at_an_end(self, space: SearchSpace) -> bool:
        return self.boundary in (0, len(space.blocks))

    def _beside_an_end(self, subnet: Subnet, entry: Estimate) -> Estimate:
        last, first = (None, subnet.choices[0]) if self.boundary == 0 else (subnet.choices[-1], None)
        columns = dict.fromkeys(features_of(last, first), 1.0)
        us, error = self.effects.of(columns | {name + GROWING: entry.value / self.mean_us - 1 for name in columns})
        return widened(entry, max(entry.value + us, FLOOR_US), error) if error > 0 else entry


def _columns(rows: Sequence[Sequence[str]]) -> dict[str, Vector]:
    """(n,) by feature: one layer's before two layers', a kernel's or an expansion's before a whole choice's."""
    names = sorted(
        {name for row in rows for name in row}, key=lambda name: (name.strip("|").count("|"), len(name), name)
    )
    columns = {name: np.array([float(name in row) for row in rows]) for name in names}
    return {name: column for name, column in columns.items() if 2 <= column.sum() <= len(rows) - 2}


def repairs_of(table: Table) -> tuple[Repair, ...]:
    """`TableError` where they are not readable."""
    try:
        return tuple(build(Repair, raw, REPAIRS) for raw in table.provenance.get(REPAIRS, ()))
    except (TypeError, ValueError, ConfigError) as error:
        raise TableError(f"the {table.quantity} table's repairs are not readable ({error}): profile again") from None
