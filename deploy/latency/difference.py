"""What changed from one latency table to another: keys, sources, values, ranks. It compares what may not be mixed."""

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
    """An entry in both tables; `ratio` is b / a, values are microseconds."""

    subnet: str
    a_us: float
    b_us: float
    ratio: float
    beyond: bool  # the two 95 % intervals do not touch


@dataclass(frozen=True)
class Difference:
    """From table a to table b.

    Attributes:
        keys: in words; empty where both belong to the same.
        only_a, only_b: number of entries that the other lacks; `common`: of those that both have.
        sources: "measured -> corrected" and how many entries went so; only those that changed.
        ratio_p5, ratio_median, ratio_p95: of b / a over the common entries.
        tau_b: over all common entries; `tau_b_of_block` by block number; None where it is undefined.
        beyond: number of entries that moved by more than their intervals allow.
        most: those that moved most, in either direction, the furthest first.
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
    most: tuple[Moved, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(a: Table, b: Table) -> Difference:
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
    return Difference(
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
