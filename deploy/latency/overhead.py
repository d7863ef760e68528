"""What a graph pays besides its blocks' work, measured once per device and table and taken out of the blocks.

An isolated block's graph pays for a call and for its ends, and so do the stem's and the head's:

    T(block i)   = empty + edge(i) + work(i)                edge(i) = (ends(i - 1) + ends(i)) / 2
    T(stem)      = empty + stem + ends(0) / 2               the image's end is the whole model's, and stays
    T(head)      = empty + ends(last) / 2 + head            so is the answer's
    T(model)     = empty + stem + work(1) + ... + head

ends(i) is what a graph pays for having both its ends at the map between block i and the next: copies and transposes,
nothing on most CPUs. Graphs of n copies of that map give it, and with it goes what a copy itself costs:

    T(n copies)  = empty + ends + n copy                    ends = (3 T(1 copy) - T(3 copies)) / 2 - empty

and `empty` is T(1 copy) of a map of one pixel. A copy is x + x at twice the scale, which answers x: an element-wise
addition is vectorized on CPUs, runs on an NPU's fast cores, and no compiler drops it, as it may a reshape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.compile.block_forms import values_at
from hil.stats import LatencySummary
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate, Source
from nas.quant import splice
from nas.quant.integer_graph import IntegerGraph, IntTensor, QAdd
from nas.settings import STRICT, build
from nas.table import Table

FLOOR_US = 1.0  # no entry is below it: the board's clock tells no less, and a sum needs positive numbers
COPIES = (1, 3)
COPIED = "map"  # no tensor of a network is called so
COPY_SCALE = 1 / 128


@dataclass(frozen=True)
class Known:
    """A measured time, or a sum of such: microseconds, with half the width of its 95 % interval."""

    us: float
    half_us: float
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not (math.isfinite(self.us) and 0 <= self.half_us < math.inf):
            raise ConfigError(f"a time of {self.us} us, give or take {self.half_us} us, is none")

    @classmethod
    def of(cls, summary: LatencySummary) -> Known:
        low, high = summary.ci95_us
        return cls(summary.median_us, (high - low) / 2)

    @property
    def ci95_us(self) -> tuple[float, float]:
        return self.us - self.half_us, self.us + self.half_us


def weighted(*terms: tuple[float, Known]) -> Known:
    """The sum of (weight, time): independent errors, so half-widths add as the root of their squares' sum."""
    return Known(sum(w * t.us for w, t in terms), math.sqrt(sum((w * t.half_us) ** 2 for w, t in terms)))


def entry(value_us: float, below_us: float, above_us: float, n: int, source: Source) -> Estimate:
    """A table's entry, not below `FLOOR_US`; the interval reaches as far from it as it was measured to."""
    value = max(value_us, FLOOR_US)
    return Estimate(value, None, value - below_us, value + above_us, n, source)


@dataclass(frozen=True)
class Constants:
    """All in microseconds.

    Attributes:
        empty_us: a call of the least graph.
        edges_us: for each block, what its isolated graph pays for its ends.
        stem_us, head_us: what precedes the first block and follows the last, with the whole model's own ends.
        n: samples behind each measured graph, at least.
    """

    empty_us: Known
    edges_us: tuple[Known, ...]
    stem_us: Known
    head_us: Known
    n: int
    __pydantic_config__ = STRICT

    @property
    def around_us(self) -> float:
        """A whole model's latency beyond the sum of its blocks' entries."""
        return self.empty_us.us + self.stem_us.us + self.head_us.us

    def work(self, alone: LatencySummary, block: int) -> Estimate:
        """The entry of a subnet of `block` whose isolated graph took `alone`.

        Its interval is as wide as that of the median: the constants' errors are the same for a block's subnets.
        """
        value = alone.median_us - self.empty_us.us - self.edges_us[block - 1].us
        low, high = alone.ci95_us
        return entry(value, alone.median_us - low, high - alone.median_us, alone.n, "measured")

    def record(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def of(cls, table: Table) -> Constants:
        """Those that were taken out of a latency table's entries; `TableError` where it does not say."""
        try:
            return build(cls, table.provenance["constants"], "constants")
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            reason = "it has none" if isinstance(error, KeyError) else str(error)
            raise TableError(
                f"the {table.quantity} table does not tell its constants ({reason}): profile again"
            ) from None


def around_blocks_us(table: Table) -> float:
    """What a whole model takes beyond the table's sum, microseconds; 0 where the table knows no constants."""
    return Constants.of(table).around_us if "constants" in table.provenance else 0.0


def graphs(reference: IntegerGraph) -> dict[str, IntegerGraph]:
    """What has to be measured, by name, from a whole model: maps of one shape are copied once."""
    seams = splice.boundary_maps(reference)
    found = {
        "constant-empty": copies((1, 1, seams[0].shape[2]), 1),
        "constant-stem": reference.until(seams[0].name),
        "constant-head": splice.after_blocks(reference),
    }
    return found | {_name(seam, count): copies(seam.shape, count) for seam in seams for count in COPIES}


def copies(shape: tuple[int, int, int], count: int) -> IntegerGraph:
    """A map of `shape` (H, W, C) copied `count` times, each time at twice the scale: the same integers."""
    names = [COPIED, *(f"copy{i}" for i in range(1, count + 1))]
    tensors = {name: IntTensor(name, shape, COPY_SCALE * 2**i, 0) for i, name in enumerate(names)}
    operators = tuple(QAdd(y, x, x) for x, y in pairwise(names))
    return IntegerGraph(tensors, operators, COPIED)


def _name(seam: IntTensor, count: int) -> str:
    return f"constant-{'x'.join(map(str, seam.shape))}-{count}"


def compiled(reference: IntegerGraph, image: Tensor, folder: Path, key: str) -> Iterator[Artifact]:
    """The files of `graphs`, each with its golden pair for `image` (1, 3, H, W); `key` goes into their metadata."""
    for name, graph in graphs(reference).items():
        x = _ramp(graph) if graph.input == COPIED else values_at(reference, graph.input, image)
        yield save_model(graph, x, Artifact.at(folder, name), model_metadata(graph, name, key))


def _ramp(graph: IntegerGraph) -> Tensor:
    """Every value of an int8 in turn, as real values (1, C, H, W)."""
    height, width, channels = graph.tensors[COPIED].shape
    q = torch.arange(height * width * channels) % 256 - 128
    return (q * COPY_SCALE).reshape(1, channels, height, width)


def solved(measured: Mapping[str, LatencySummary], reference: IntegerGraph) -> Constants:
    """The constants from the measured `graphs` of `reference`, by the equations above; none is below zero."""
    times = {name: Known.of(measured[name]) for name in graphs(reference)}
    empty = times["constant-empty"]
    ends = [
        _not_below_zero(weighted((1.5, times[_name(seam, 1)]), (-0.5, times[_name(seam, 3)]), (-1, empty)))
        for seam in splice.boundary_maps(reference)
    ]
    edges = tuple(weighted((0.5, a), (0.5, b)) for a, b in pairwise(ends))
    stem = weighted((1, times["constant-stem"]), (-1, empty), (-0.5, ends[0]))
    head = weighted((1, times["constant-head"]), (-1, empty), (-0.5, ends[-1]))
    least = min(measured[name].n for name in times)
    return Constants(empty, edges, _not_below_zero(stem), _not_below_zero(head), least)


def _not_below_zero(time: Known) -> Known:
    return Known(max(time.us, 0.0), time.half_us)
