"""What changed from one latency table to another: keys, sources, values, ranks. The tables may be of unlike things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploy.latency.agreement import tau_b
from deploy.latency.key import TableKey, difference
from hil.errors import CheckFailed
from nas.errors import TableError
from nas.estimate import Estimate
from nas.space import Subnet
from nas.table import Table

MOST = 10


@dataclass(frozen=True)
class Moved:
    """An entry in both tables.

    Attributes:
        subnet: of the entry.
        a_us: its value in table a, microseconds.
        b_us: its value in table b.
        ratio: b / a.
        beyond: whether the two 95 % intervals are disjoint.
    """

    subnet: str
    a_us: float
    b_us: float
    ratio: float
    beyond: bool


@dataclass(frozen=True)
class TableDifference:
    """From table a to table b.

    Attributes:
        keys: in words what differs; empty where both belong to the same.
        only_a: number of entries that table b lacks.
        only_b: number of entries that table a lacks.
        common: number of entries that both have.
        sources: "measured -> corrected" and how many entries changed so.
        ratio_p5: 5th percentile of b / a over the common entries.
        ratio_median: median of b / a.
        ratio_p95: 95th percentile of b / a.
        tau_b: over all common entries; None where it is undefined.
        tau_b_of_block: the same by block number.
        beyond: number of entries whose two intervals are disjoint.
        interactions: number of terms at block boundaries that differ.
        most: the entries that moved most, in either direction, largest change first.
    """

    keys: tuple[str, ...]
    only_a: int
    only_b: int
    common: int
    sources: Mapping[str, int]
    ratio_p5: float
    ratio_median: float
    ratio_p95: float
    tau_b: float | None
    tau_b_of_block: Mapping[int, float | None]
    beyond: int
    interactions: int
    most: tuple[Moved, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(a: Table, b: Table) -> TableDifference:
    """`TableError` if one is no latency table, they are of different spaces, or have no positive entry in common."""
    key_a, key_b = TableKey.of(a), TableKey.of(b)
    if key_a.space != key_b.space:
        raise TableError(f"the tables are of different spaces ({key_a.space} and {key_b.space}): nothing to compare")
    common = [s for s in a.entries if s in b.entries and a.entries[s].value > 0 and b.entries[s].value > 0]
    if not common:
        raise TableError("the tables have no entry in common: nothing to compare")
    pairs = [(a.entries[s], b.entries[s]) for s in common]
    moved = [_moved(s, *pair) for s, pair in zip(common, pairs, strict=True)]
    went = Counter(f"{one.source} -> {other.source}" for one, other in pairs if one.source != other.source)
    low, median, high = (float(q) for q in np.quantile([m.ratio for m in moved], (0.05, 0.5, 0.95)))
    furthest = sorted(moved, key=lambda m: (-abs(np.log(m.ratio)), m.subnet))[:MOST]
    blocks = sorted({s.block for s in common})
    return TableDifference(
        tuple(difference(key_a, key_b)),
        len(a.entries.keys() - b.entries.keys()),
        len(b.entries.keys() - a.entries.keys()),
        len(common),
        dict(went),
        low,
        median,
        high,
        _tau(pairs),
        {n: _tau([pair for s, pair in zip(common, pairs, strict=True) if s.block == n]) for n in blocks},
        sum(m.beyond for m in moved),
        sum(a.interaction(met) != b.interaction(met) for met in a.interactions.keys() | b.interactions.keys()),
        tuple(furthest),
    )


def _moved(subnet: Subnet, a: Estimate, b: Estimate) -> Moved:
    return Moved(str(subnet), a.value, b.value, b.value / a.value, a.high < b.low or b.high < a.low)


def _tau(pairs: Sequence[tuple[Estimate, Estimate]]) -> float | None:
    """None for fewer than three entries, or where all of one table are equal."""
    try:
        return tau_b(np.array([a.value for a, _ in pairs]), np.array([b.value for _, b in pairs]))
    except CheckFailed:
        return None
