"""A look-up table: one estimate per subnet, and the table's provenance. Parquet on disk.

The estimate of a full network is the sum over its blocks (QA-BWNAS, section 3), and over its block boundaries where
the layers that meet there were measured to interact.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.atomic import write_atomically
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.settings import build
from nas.space import Architecture, Boundary, SearchSpace, Subnet

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "hilnas-table/2"
WITH_INTERACTIONS = "hilnas-table/3"
READABLE = ("hilnas-table/1", FORMAT, WITH_INTERACTIONS)
FORMER_SOURCES = {"isolated": "measured", "in_context": "measured", "regressed": "predicted"}
"""The sources of format 1, which has no column `std_error` either; how blocks were measured is in the table's key."""
ORIGIN = {"space": "space", "key": "configuration or run (key)", "checkpoint": "checkpoint"}
"""The parts of a table's provenance that are checked, in words."""


@dataclass(frozen=True, eq=False)
class Table:
    """An estimate per subnet.

    Attributes:
        quantity: what the numbers are: nsr, size, latency, ...
        unit: of every estimate.
        entries: the estimates.
        provenance: what they depend on: the space, the run's key, the checkpoint, ...
        interactions: what two neighbouring blocks cost beyond their entries, by the layers that meet at their boundary;
            nothing at the others.
    """

    quantity: str
    unit: str
    entries: Mapping[Subnet, Estimate]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    interactions: Mapping[Boundary, Estimate] = field(default_factory=dict)

    def __getitem__(self, subnet: Subnet) -> float:
        try:
            return self.entries[subnet].value
        except KeyError:
            raise TableError(f"the {self.quantity} table has no entry for {subnet}; populate it first") from None

    def interaction(self, boundary: Boundary) -> float:
        found = self.interactions.get(boundary)
        return found.value if found else 0.0

    def total(self, architecture: Architecture) -> float:
        """The sum, rounded after each boundary and block: since Python 3.12 `sum` would round otherwise."""
        total, before = 0.0, None
        for subnet in architecture.subnets:
            if before is not None and self.interactions:
                total += self.interaction(Boundary.between(before, subnet))
            total += self[subnet]
            before = subnet
        return total

    def column(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        """The values of `subnets`, (n,); `TableError` naming the first that is missing or not finite."""
        try:
            values = np.array([self.entries[subnet].value for subnet in subnets], np.float64)
        except KeyError:
            missing = [subnet for subnet in subnets if subnet not in self.entries]
            raise TableError(
                f"the {self.quantity} table misses {len(missing)} subnets, the first is {missing[0]}"
            ) from None
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise TableError(
                f"the {self.quantity} of {subnets[bad[0]]} is {values[bad[0]]} "
                f"({len(bad)} such entries): retrain that block or leave it out of the space"
            )
        return values

    def check_space(self, space: SearchSpace) -> None:
        """`TableError` unless the table is of this space."""
        if self.provenance.get("space") != space.digest:
            raise TableError(
                f"the {self.quantity} table belongs to another space "
                f"({self.provenance.get('space')}, not {space.digest}); populate it again"
            )

    def check_origin(self, expected: Mapping[str, Any]) -> None:
        """`TableError` where the provenance differs from what is `expected`; what it does not name passes."""
        for what, wanted in expected.items():
            actual = self.provenance.get(what, wanted)
            if actual != wanted:
                raise TableError(
                    f"the {self.quantity} table was made with another {ORIGIN.get(what, what)} "
                    f"({actual}, not {wanted}); populate it again"
                )

    def check(self, space: SearchSpace) -> None:
        """`TableError` unless the table is of this space, complete and finite."""
        self.check_space(space)
        self.column(list(space.all_subnets()))

    def to_frame(self) -> pd.DataFrame:
        """One row per subnet; quantity, unit, provenance and interactions are in `attrs["hilnas"]`."""
        import pandas as pd

        frame = pd.DataFrame([{"subnet": str(subnet), **asdict(entry)} for subnet, entry in self.entries.items()])
        if "std_error" in frame:  # a table without entries has no columns
            frame["std_error"] = frame["std_error"].astype("float64")  # unknown ones are null on disk
        header = {"quantity": self.quantity, "unit": self.unit, "provenance": dict(self.provenance)}
        if self.interactions:
            interactions = {str(boundary): asdict(entry) for boundary, entry in self.interactions.items()}
            header = {"format": WITH_INTERACTIONS, **header, "interactions": interactions}
        else:
            header = {"format": FORMAT, **header}
        frame.attrs["hilnas"] = header
        return frame

    def save(self, path: Path) -> None:
        """Write Parquet, atomically."""
        content = io.BytesIO()
        self.to_frame().to_parquet(content, engine="pyarrow", index=False)
        write_atomically(path, content.getbuffer())

    @classmethod
    def load(cls, path: Path) -> Table:
        """The table in a file, also of format 1; `TableError` if it is missing, damaged, or not of this kit."""
        import pandas as pd
        import pyarrow as pa
        from pydantic import TypeAdapter, ValidationError

        try:
            frame = pd.read_parquet(path, engine="pyarrow")
            header = frame.attrs["hilnas"]
            if header["format"] not in READABLE:
                raise TableError(f"{path}: format {header['format']}, this version reads {FORMAT}; populate it again")
            rows = frame.to_dict("records")
            subnets = [Subnet.parse(row.pop("subnet")) for row in rows]
            estimates = TypeAdapter(list[Estimate]).validate_python([_current(row) for row in rows])
            interactions = _interactions(header.get("interactions", {}))
        except ValidationError as error:
            (row, *place), first = error.errors()[0]["loc"], error.errors()[0]
            raise TableError(
                f"{path}: {subnets[int(row)]}: '{'.'.join(map(str, place))}': {first['msg']}; populate it again"
            ) from None
        except (OSError, pa.ArrowException, ConfigError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TableError(f"{path}: not a table of this kit ({reason}); populate it again") from None
        entries = dict(zip(subnets, estimates, strict=True))
        return cls(header["quantity"], header["unit"], entries, header["provenance"], interactions)


def _interactions(raw: Mapping[str, Any]) -> dict[Boundary, Estimate]:
    """`ConfigError` where one is not readable, or no number."""
    found = {Boundary.parse(text): build(Estimate, entry, text) for text, entry in raw.items()}
    for boundary, entry in found.items():
        if not np.isfinite(entry.value):
            raise ConfigError(f"{boundary}: an interaction of {entry.value}")
    return found


def _current(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any readable format as this version's."""
    std_error = row.get("std_error")
    unknown = std_error is None or np.isnan(std_error)
    source = FORMER_SOURCES.get(row["source"], row["source"])
    return {**row, "std_error": None if unknown else std_error, "source": source}


def check_together(tables: Sequence[Table]) -> None:
    """`TableError` unless the tables have the same origin, where both name it."""
    for first, second in itertools.combinations(tables, 2):
        for what in ("space", "checkpoint"):
            pair = [table.provenance.get(what) for table in (first, second)]
            if None not in pair and pair[0] != pair[1]:
                raise TableError(
                    f"the {first.quantity} table and the {second.quantity} table are of different {ORIGIN[what]}s "
                    f"({pair[0]} and {pair[1]}); populate one of them again"
                )


Offsets: TypeAlias = Callable[[int, int], int]
"""The bits of a layer's offsets, from the number of its outputs and the width of its weights: `Scheme.offset_bits`."""


def one_per_output(outputs: int, bits: int) -> int:
    """Of the default scheme."""
    return 8 * outputs if bits < 8 else 0


def size_table(space: SearchSpace, offset_bits: Offsets = one_per_output) -> Table:
    """Bits per subnet: weights packed at their width, offsets at 8 bits, biases at 32 (`IntegerGraph.size_bits`)."""
    entries = {subnet: Estimate.exact(subnet_size_bits(space, subnet, offset_bits)) for subnet in space.all_subnets()}
    return Table("size", "bits", entries, {"space": space.digest})


def subnet_size_bits(space: SearchSpace, subnet: Subnet, offset_bits: Offsets = one_per_output) -> int:
    """Bits of one subnet, which may have other depths and choices than the space's."""
    bits = 0
    for i, choice in enumerate(subnet.choices):
        channels_in, channels_out, _, _ = space.layer_geometry(subnet.block, i)
        width = channels_in * choice.expansion
        weights = width * choice.kernel**2 + width * channels_out + (channels_in * width if choice.expansion > 1 else 0)
        outputs = [width, channels_out] + [width] * (choice.expansion > 1)
        offsets = sum(offset_bits(count, subnet.bits) for count in outputs)
        bits += weights * subnet.bits + offsets + sum(outputs) * 32
    return bits
