"""A look-up table: one number a subnet, with its interval, its source and where it came from. Parquet on disk.

The estimate of a whole model is the sum over its blocks (QA-BWNAS, section 3).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nas.errors import TableError
from nas.space import Architecture, SearchSpace, Subnet

Source = Literal["computed", "isolated", "in_context", "regressed", "corrected", "replayed"]
FORMAT = "hilnas-table/1"


@dataclass(frozen=True)
class Entry:
    """One subnet's number: `value` in the table's unit, its 95 % interval, samples behind it, how it is known."""

    value: float
    low: float
    high: float
    n: int
    source: Source

    @classmethod
    def exact(cls, value: float) -> Entry:
        """A number that was computed, not sampled."""
        return cls(value, value, value, 1, "computed")


@dataclass(frozen=True, eq=False)
class Table:
    """`quantity` is what the numbers are (nsr, size, latency), `provenance` what they depend on."""

    quantity: str
    unit: str
    entries: Mapping[Subnet, Entry]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, subnet: Subnet) -> float:
        try:
            return self.entries[subnet].value
        except KeyError:
            raise TableError(f"the {self.quantity} table has no entry for {subnet}; populate it first") from None

    def total(self, architecture: Architecture) -> float:
        return sum(self[subnet] for subnet in architecture.subnets)

    def check(self, space: SearchSpace) -> None:
        """`TableError` unless the table is of this space, whole and finite."""
        if self.provenance.get("space") != space.digest:
            raise TableError(
                f"the {self.quantity} table belongs to another space "
                f"({self.provenance.get('space')}, not {space.digest}); populate it again"
            )
        missing = [subnet for subnet in space.all_subnets() if subnet not in self.entries]
        if missing:
            raise TableError(f"the {self.quantity} table misses {len(missing)} subnets, the first is {missing[0]}")
        bad = [subnet for subnet, entry in self.entries.items() if not math.isfinite(entry.value)]
        if bad:
            raise TableError(
                f"the {self.quantity} of {bad[0]} is {self.entries[bad[0]].value} "
                f"({len(bad)} such entries): retrain that block or leave it out of the space"
            )

    def save(self, path: Path) -> None:
        """Write aside, then rename into place."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [{"subnet": str(subnet), **asdict(entry)} for subnet, entry in self.entries.items()]
        header = {"format": FORMAT, "quantity": self.quantity, "unit": self.unit, "provenance": dict(self.provenance)}
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"hilnas": json.dumps(header)})
        part = path.with_suffix(".part")
        pq.write_table(table, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            header = json.loads((table.schema.metadata or {})[b"hilnas"])
            rows: list[dict[str, Any]] = table.to_pylist()
            entries = {Subnet.parse(row.pop("subnet")): Entry(**row) for row in rows}
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TableError(f"{path}: not a table of this kit ({reason}); populate it again") from None
        if header["format"] != FORMAT or any(entry.source not in get_args(Source) for entry in entries.values()):
            raise TableError(f"{path}: format {header['format']}, this version reads {FORMAT}; populate it again")
        return cls(header["quantity"], header["unit"], entries, header["provenance"])


def size_table(space: SearchSpace) -> Table:
    """Bits of each subnet: weights packed at their width, biases at 32 bits (as `IntegerGraph.size_bits`)."""
    entries = {subnet: Entry.exact(_size_bits(space, subnet)) for subnet in space.all_subnets()}
    return Table("size", "bits", entries, {"space": space.digest})


def _size_bits(space: SearchSpace, subnet: Subnet) -> int:
    bits = 0
    for i, choice in enumerate(subnet.choices):
        channels_in, channels_out, _, _ = space.layer_geometry(subnet.block, i)
        width = channels_in * choice.expansion
        weights = width * choice.kernel**2 + width * channels_out + (channels_in * width if choice.expansion > 1 else 0)
        biases = width + channels_out + (width if choice.expansion > 1 else 0)
        bits += weights * subnet.bits + biases * 32
    return bits


def merge(tables: Iterable[Table]) -> Table:
    """Tables of one quantity and unit as one (for example one a bit width); `TableError` if they differ."""
    tables = list(tables)
    first = tables[0]
    if any((t.quantity, t.unit, t.provenance) != (first.quantity, first.unit, first.provenance) for t in tables):
        raise TableError(f"{first.quantity} tables of different kinds or provenance cannot be merged")
    return Table(first.quantity, first.unit, {k: v for t in tables for k, v in t.entries.items()}, first.provenance)
