"""The features that a latency may be linear in: operator counts, and which choice has which position.

Operator counts are nn-Meter's idea (Zhang et al., MobiSys 2021): on one device the time of a convolution follows from
its kind and its sizes, so the latency of a block that was never run can be predicted from that of others. What the
counts do not explain, the position of a choice, or of two successive ones, may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nas.space import Architecture, Choice, SearchSpace, Subnet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
GROUPS = ("kernels", "variants", "blocks", "layers", "pairs")
"""Of a block's features: operator counts; those by stride and dilation; which block; which choice in each layer; which
two choices follow each other."""
CONTEXT_GROUPS = ("slopes", "layers", "boundaries")
"""Of a full network's: its blocks' latencies; each layer's choice; which two choices meet at a block boundary."""


@dataclass(frozen=True, eq=False)
class BlockFeatures:
    """A sparse design.

    Attributes:
        names: of the features.
        group: (features,) the index of each one's group in `GROUPS`.
        rows: for each subnet its (feature, value) pairs.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    rows: Mapping[Subnet, tuple[tuple[int, float], ...]]

    def select(self, subnets: Iterable[Subnet]) -> BlockFeatures:
        """The design of these subnets only."""
        return BlockFeatures(self.names, self.group, {subnet: self.rows[subnet] for subnet in subnets})

    def matrix(self, subnets: Sequence[Subnet]) -> Matrix:
        """(subnets, features), dense."""
        x = np.zeros((len(subnets), len(self.names)))
        for i, subnet in enumerate(subnets):
            for column, value in self.rows[subnet]:
                x[i, column] = value
        return x


def operator_counts(space: SearchSpace, size: tuple[int, int], subnet: Subnet) -> Iterator[tuple[str, float]]:
    """(feature, amount) of a subnet for images of `size` (H, W): multiply-accumulates and elements in 1e6, calls.

    Depthwise convolutions are counted by kernel size, and again by stride and dilation; pointwise ones by whether they
    widen.
    """
    height, width = (_input_size(n, subnet.block, space) for n in size)
    for i, choice in enumerate(subnet.choices):
        channels_in, channels_out, stride, dilation = space.layer_geometry(subnet.block, i)
        inside = channels_in * choice.expansion
        before = height * width
        height, width = -(-height // stride), -(-width // stride)
        after = height * width
        if choice.expansion > 1:
            yield from _work("expand", before * channels_in * inside, before * (channels_in + inside))
        depthwise = (after * inside * choice.kernel**2, before * inside + after * inside)
        yield from _work(f"depthwise k{choice.kernel}", *depthwise)
        yield from _work(f"depthwise k{choice.kernel} s{stride} d{dilation}", *depthwise)
        yield from _work("project", after * inside * channels_out, after * (inside + channels_out))
        if stride == 1 and channels_in == channels_out:
            yield from _work("add", 0, 3 * after * channels_out)


def _input_size(n: int, block: int, space: SearchSpace) -> int:
    """Height or width of what enters the block, for an image of `n`: the stem has stride 2."""
    for stride in (2, *(b.stride for b in space.blocks[: block - 1])):
        n = -(-n // stride)
    return n


def _work(kernel: str, macs: int, elements: int) -> Iterator[tuple[str, float]]:
    yield f"{kernel} calls", 1.0
    yield f"{kernel} Melements", elements / 1e6
    if macs:
        yield f"{kernel} MMACs", macs / 1e6


def block_features(space: SearchSpace, size: tuple[int, int]) -> BlockFeatures:
    """Features of every subnet of the space; operator counts are divided by their standard deviation over it."""
    names: dict[tuple[str, str], int] = {}
    rows: dict[Subnet, dict[int, float]] = {}
    for subnet in space.all_subnets():
        row = rows[subnet] = {}
        for group, name, amount in _named_features(space, size, subnet):
            column = names.setdefault((group, name), len(names))
            row[column] = row.get(column, 0.0) + amount
    counted = [column for (group, _), column in names.items() if group in ("kernels", "variants")]
    amounts = np.array([[row.get(column, 0.0) for column in counted] for row in rows.values()])
    scale = dict(zip(counted, np.maximum(amounts.std(axis=0), 1e-9).tolist(), strict=True))
    scaled = {s: tuple((i, v / scale.get(i, 1.0)) for i, v in row.items()) for s, row in rows.items()}
    return BlockFeatures(
        tuple(name for _, name in names), np.array([GROUPS.index(group) for group, _ in names]), scaled
    )


def _named_features(space: SearchSpace, size: tuple[int, int], subnet: Subnet) -> Iterator[tuple[str, str, float]]:
    """(group, feature, amount) of a subnet."""
    for name, amount in operator_counts(space, size, subnet):
        yield "variants" if " s" in name else "kernels", name, amount
    yield "blocks", f"b{subnet.block}", 1.0
    for i, choice in enumerate(subnet.choices):
        yield "layers", f"b{subnet.block}/{i} {choice}", 1.0
    for i, (first, second) in enumerate(pairwise(subnet.choices)):
        yield "pairs", f"b{subnet.block}/{i} {first} {second}", 1.0


@dataclass(frozen=True, eq=False)
class ContextFeatures:
    """What a full network's latency may have besides the sum of its blocks.

    The indicator of the two choices at a block boundary is centred over both choices, so that the effect of a boundary
    is what no sum over blocks can hold, and nothing else.

    Attributes:
        names: of the features.
        group: (features,) the index of each one's group in `CONTEXT_GROUPS`.
        blocks: for each feature the blocks that it is about.
        rows: for each subnet (features,), those of boundaries being zero.
        boundaries: (features,) of each block boundary: block before, its last choice, the first choice after.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    blocks: tuple[tuple[int, ...], ...]
    rows: Mapping[Subnet, Vector]
    boundaries: Mapping[tuple[int, Choice, Choice], Vector]

    @classmethod
    def of(cls, space: SearchSpace, latency_us: Mapping[Subnet, float]) -> ContextFeatures:
        """The features of the subnets that have a latency, some of every block."""
        blocks, choices = range(1, len(space.blocks) + 1), space.choices
        layers = [(b, i, c) for b in blocks for i in range(space.blocks[b - 1].layers) for c in choices]
        joints = [(b, first, second) for b in blocks[:-1] for first in choices for second in choices]
        names = (
            *(f"slope b{b}" for b in blocks),
            *(f"b{b}/{i} {c}" for b, i, c in layers),
            *(f"b{b} {first}|{second}" for b, first, second in joints),
        )
        group = np.repeat([0, 1, 2], [len(blocks), len(layers), len(joints)])
        about = (*((b,) for b in blocks), *((b,) for b, _, _ in layers), *((b, b + 1) for b, _, _ in joints))
        rows = _context_rows(names, blocks, latency_us)
        return cls(names, group, about, rows, _boundary_rows(len(names), joints, choices))

    def matrix(self, architectures: Sequence[Architecture]) -> Matrix:
        """(architectures, features)."""
        z = np.zeros((len(architectures), len(self.names)))
        for i, architecture in enumerate(architectures):
            for subnet in architecture.subnets:
                z[i] += self.rows[subnet]
            for before, after in pairwise(architecture.subnets):
                z[i] += self.boundaries[before.block, before.choices[-1], after.choices[0]]
        return z


def _context_rows(
    names: Sequence[str], blocks: Sequence[int], latency_us: Mapping[Subnet, float]
) -> dict[Subnet, Vector]:
    """A slope's value is the subnet's latency less the mean of its block, as a share of that mean."""
    column = {name: i for i, name in enumerate(names)}
    means = {b: float(np.mean([us for s, us in latency_us.items() if s.block == b])) for b in blocks}
    rows = {}
    for subnet in latency_us:
        z = np.zeros(len(names))
        z[subnet.block - 1] = latency_us[subnet] / means[subnet.block] - 1
        for i, choice in enumerate(subnet.choices):
            z[column[f"b{subnet.block}/{i} {choice}"]] = 1.0
        rows[subnet] = z
    return rows


def _boundary_rows(
    features: int, joints: Sequence[tuple[int, Choice, Choice]], choices: Sequence[Choice]
) -> dict[tuple[int, Choice, Choice], Vector]:
    """Of every boundary: its features are the last ones, those of one boundary together."""
    n = len(choices)
    centre = np.eye(n) - 1 / n
    rows = {}
    for b, first, second in joints:
        z = np.zeros(features)
        start = features - len(joints) + (b - 1) * n * n
        z[start : start + n * n] = np.outer(centre[choices.index(first)], centre[choices.index(second)]).ravel()
        rows[b, first, second] = z
    return rows
