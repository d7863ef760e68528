"""What a graph costs besides its block's work, measured once per device and table and taken out of the entries.

The graph of an isolated block costs a call, and the transfer of its input and output; so do the stem's and the head's:

    T(block i)   = empty + io(i) + work(i)                  io(i) = (transfer(i - 1) + transfer(i)) / 2
    T(stem)      = empty + stem + transfer(0) / 2           the image's transfer is the full network's too, and stays
    T(head)      = empty + transfer(last) / 2 + head        so is the class map's
    T(network)   = empty + stem + work(1) + ... + head

transfer(i) is the cost of both reading and writing the map between block i and the next at a graph's boundary: copies
and transposes, nothing on most CPUs. It follows from graphs of n copies of that map, with the cost of a copy itself:

    T(n copies)  = empty + transfer + n copy                transfer = (3 T(1 copy) - T(3 copies)) / 2 - empty

and `empty` is T(1 copy) of a map of one pixel. A copy is x + x at twice the scale, which is x again: an element-wise
addition is vectorized on CPUs, runs on an NPU's fast cores, and no compiler drops it, as it may a reshape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.compile.block_forms import values_at
from deploy.latency.estimates import moved, of_summary, weighted_sum
from deploy.run.records.base import Record
from hil.errors import UsageError
from hil.stats import LatencySummary
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.quant import splice
from nas.quant.integer_graph import IntegerGraph, IntTensor, QAdd
from nas.quant.tails import Tail
from nas.table import Table

FLOOR_US = 1.0  # no entry is below it: the board's clock resolves no less, and a sum needs positive numbers
PROVENANCE = "overhead"
"""Where a latency table's provenance has the overhead that was taken out of its entries."""
COPIES = (1, 3)
COPIED = "map"  # no tensor of a network has this name
COPY_SCALE = 1 / 128
EMPTY, STEM, HEAD = "overhead-empty", "overhead-stem", "overhead-head"


@dataclass(frozen=True)
class OverheadRecord(Record):
    """What was taken out of a latency table's entries, microseconds; tables/overhead.json and the table's provenance.

    Attributes:
        empty_us: a call of the smallest graph.
        io_us: for each block, the transfer of its isolated graph's input and output.
        stem_us: what precedes the first block, with the full network's input.
        head_us: what follows the last block, with the full network's output.
    """

    empty_us: Estimate
    io_us: tuple[Estimate, ...]
    stem_us: Estimate
    head_us: Estimate

    FILE: ClassVar[str] = "overhead.json"
    COMMAND: ClassVar[str] = "lut latency"

    def __post_init__(self) -> None:
        for time in (self.empty_us, *self.io_us, self.stem_us, self.head_us):
            if not (math.isfinite(time.value) and 0 <= time.high - time.low < math.inf):
                raise ConfigError(f"an overhead of {time.value} us [{time.low}, {time.high}]: measure it again")

    @property
    def outside_blocks_us(self) -> float:
        """A full network's latency beyond the sum of its blocks' entries."""
        return self.empty_us.value + self.stem_us.value + self.head_us.value

    def work(self, isolated: LatencySummary, block: int) -> Estimate:
        """The entry of a subnet of `block` whose isolated graph took that long; not below `FLOOR_US`.

        Its interval is as wide as that of the median: the overhead's errors are the same for all subnets of a block.
        """
        value = isolated.median_us - self.empty_us.value - self.io_us[block - 1].value
        return moved(of_summary(isolated), max(value, FLOOR_US))

    @classmethod
    def of(cls, table: Table) -> OverheadRecord:
        """The overhead in a latency table's provenance; `TableError` where there is none that is readable."""
        try:
            if "constants" in table.provenance:
                return cls(**_former(table.provenance["constants"]))
            return cls.from_json(table.provenance[PROVENANCE], PROVENANCE)
        except (AttributeError, KeyError, TypeError, ValueError, ConfigError, UsageError) as error:
            reason = "it has none" if isinstance(error, KeyError) else str(error)
            raise TableError(
                f"the {table.quantity} table's overhead is not readable ({reason}): profile again"
            ) from None


def _former(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The overhead as tables of format 1 have it: a value and half the width of its interval."""

    def estimate(time: Mapping[str, float]) -> Estimate:
        us, half_us = float(time["us"]), float(time["half_us"])
        return Estimate(us, None, us - half_us, us + half_us, int(raw["n"]), "measured")

    io = tuple(estimate(time) for time in raw["edges_us"])
    return {"io_us": io, **{name: estimate(raw[name]) for name in ("empty_us", "stem_us", "head_us")}}


def outside_blocks_us(table: Table) -> float:
    """A full network's latency beyond the table's sum, microseconds; 0 where the table names no overhead."""
    return OverheadRecord.of(table).outside_blocks_us if {PROVENANCE, "constants"} & table.provenance.keys() else 0.0


def graphs(reference: IntegerGraph) -> dict[str, IntegerGraph]:
    """What has to be measured, by name, from a full network; maps of one shape are copied once."""
    maps = splice.boundary_maps(reference)
    parts = {
        EMPTY: copies((1, 1, maps[0].shape[2]), 1),
        STEM: reference.until(maps[0].name),
        HEAD: splice.after_blocks(reference),
    }
    return parts | {_name(at, count): copies(at.shape, count) for at in maps for count in COPIES}


def copies(shape: tuple[int, ...], count: int) -> IntegerGraph:
    """A map of `shape` (H, W, C) copied `count` times, each time at twice the scale: the same integers."""
    names = [COPIED, *(f"copy{i}" for i in range(1, count + 1))]
    tensors = {name: IntTensor(name, shape, COPY_SCALE * 2**i, 0) for i, name in enumerate(names)}
    operators = tuple(QAdd(y, x, x) for x, y in pairwise(names))
    return IntegerGraph(tensors, operators, COPIED)


def _name(at: IntTensor, count: int) -> str:
    return f"overhead-{'x'.join(map(str, at.shape))}-{count}"


def compiled(
    reference: IntegerGraph, image: Tensor, folder: Path, key: str, tail: Tail = "classes"
) -> Iterator[Artifact]:
    """The files of `graphs`, each with its golden pair for `image` (1, 3, H, W); `key` goes into their metadata.

    `tail`: where full networks end; the head's latency is to the class map, as theirs is.
    """
    for name, graph in graphs(reference).items():
        x = ramp(graph) if graph.input == COPIED else values_at(reference, graph.input, image)
        yield save_model(graph, x, Artifact.at(folder, name), model_metadata(graph, name, key), tail=tail)


def ramp(graph: IntegerGraph) -> Tensor:
    """An input of `copies` that runs through all int8 values, as real values (1, C, H, W)."""
    height, width, channels = graph.tensors[COPIED].shape
    q = torch.arange(height * width * channels) % 256 - 128
    return (q * COPY_SCALE).reshape(1, channels, height, width)


def solved(measured: Mapping[str, LatencySummary], reference: IntegerGraph) -> OverheadRecord:
    """The overhead from the measured `graphs` of `reference`, by the equations above; no part is below zero."""
    times = {name: of_summary(measured[name]) for name in graphs(reference)}
    empty = times[EMPTY]
    transfers = [transfer(times[_name(at, 1)], times[_name(at, 3)], empty) for at in splice.boundary_maps(reference)]
    io = tuple(weighted_sum((0.5, a), (0.5, b)) for a, b in pairwise(transfers))
    stem = weighted_sum((1, times[STEM]), (-1, empty), (-0.5, transfers[0]))
    head = weighted_sum((1, times[HEAD]), (-1, empty), (-0.5, transfers[-1]))
    return OverheadRecord(empty, io, _not_negative(stem), _not_negative(head))


def transfer(one_copy: Estimate, three_copies: Estimate, empty: Estimate) -> Estimate:
    """What reading and writing a map costs, from graphs of its copies; not below zero."""
    return _not_negative(weighted_sum((1.5, one_copy), (-0.5, three_copies), (-1, empty)))


def _not_negative(time: Estimate) -> Estimate:
    return moved(time, max(time.value, 0.0))
