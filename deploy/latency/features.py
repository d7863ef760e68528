"""What a subnet's latency may be linear in: its kernels' work, and which choice stands where.

The kernels are nn-Meter's idea (Zhang et al., MobiSys 2021): on one device the time of a convolution follows from its
kind and its sizes, so blocks that were never run can be told from others that were. What the sizes do not explain, the
position of a choice, or of two neighbouring ones, may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.space import Architecture, Choice, SearchSpace, Subnet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
GROUPS = ("kernels", "variants", "blocks", "layers", "pairs")
"""Of a block's features: sizes of its kernels; of those with one stride and dilation; which block; which choice in each
layer; which two follow each other."""
CONTEXT_GROUPS = ("slopes", "layers", "seams")
"""Of a whole model's: its blocks' latencies; each layer's choice; which two choices meet where blocks join."""


@dataclass(frozen=True, eq=False)
class Features:
    """A sparse design, by name: `rows[subnet]` are (feature, value) pairs.

    Attributes:
        names: of the features; group: of each, its group's index.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    rows: Mapping[Subnet, tuple[tuple[int, float], ...]]

    def of(self, subnets: Iterable[Subnet]) -> Features:
        """Of these subnets only."""
        return Features(self.names, self.group, {subnet: self.rows[subnet] for subnet in subnets})

    def matrix(self, subnets: Sequence[Subnet]) -> Matrix:
        """(subnets, features), dense."""
        x = np.zeros((len(subnets), len(self.names)))
        for i, subnet in enumerate(subnets):
            for column, value in self.rows[subnet]:
                x[i, column] = value
        return x


def kernels(space: SearchSpace, size: tuple[int, int], subnet: Subnet) -> Iterator[tuple[str, float]]:
    """(feature, amount) of a subnet for images of `size` (H, W): multiply-accumulates and elements in 1e6, calls.

    Depthwise kernels of another size are other kernels, and variants by stride and dilation; so are pointwise ones that
    widen.
    """
    height, width = (_halved(n, subnet.block, space) for n in size)
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


def _halved(n: int, block: int, space: SearchSpace) -> int:
    """The size that enters the block: the stem has stride 2."""
    for stride in (2, *(b.stride for b in space.blocks[: block - 1])):
        n = -(-n // stride)
    return n


def _work(kernel: str, macs: int, elements: int) -> Iterator[tuple[str, float]]:
    yield f"{kernel} calls", 1.0
    yield f"{kernel} Melements", elements / 1e6
    if macs:
        yield f"{kernel} MMACs", macs / 1e6


def block_features(space: SearchSpace, size: tuple[int, int]) -> Features:
    """Features of every subnet of the space, kernel features divided by their spread over the space."""
    names: dict[str, int] = {}
    group: list[int] = []

    def column(name: str, of: str) -> int:
        if name not in names:
            names[name] = len(group)
            group.append(GROUPS.index(of))
        return names[name]

    rows: dict[Subnet, dict[int, float]] = {}
    for subnet in space.all_subnets():
        row: dict[int, float] = {}
        for name, amount in kernels(space, size, subnet):
            index = column(name, "variants" if " s" in name else "kernels")
            row[index] = row.get(index, 0.0) + amount
        row[column(f"b{subnet.block}", "blocks")] = 1.0
        for i, choice in enumerate(subnet.choices):
            row[column(f"b{subnet.block}/{i} {choice}", "layers")] = 1.0
        for i, (first, second) in enumerate(zip(subnet.choices, subnet.choices[1:], strict=False)):
            row[column(f"b{subnet.block}/{i} {first} {second}", "pairs")] = 1.0
        rows[subnet] = row
    kernel = [i for i, of in enumerate(group) if of <= GROUPS.index("variants")]
    amounts = np.array([[row.get(i, 0.0) for i in kernel] for row in rows.values()])
    scale = dict(zip(kernel, np.maximum(amounts.std(axis=0), 1e-9).tolist(), strict=True))
    scaled = {s: tuple((i, v / scale.get(i, 1.0)) for i, v in row.items()) for s, row in rows.items()}
    return Features(tuple(names), np.array(group), scaled)


@dataclass(frozen=True, eq=False)
class ContextFeatures:
    """What a whole model's latency may have beside the sum of its blocks.

    A seam is where two blocks join; its two choices' indicator is centred over either choice, so that a seam's effect
    is what no sum over blocks can hold, and nothing else.

    Attributes:
        names: of the features; group: of each, the index in `CONTEXT_GROUPS`; blocks: which it is about.
        rows: (features,) of each subnet, seams being zero.
        seams: (features,) of each seam: block before, its last choice, the first choice after.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    blocks: tuple[tuple[int, ...], ...]
    rows: Mapping[Subnet, Vector]
    seams: Mapping[tuple[int, Choice, Choice], Vector]

    @classmethod
    def of(cls, space: SearchSpace, latency_us: Mapping[Subnet, float]) -> ContextFeatures:
        """Of the subnets that have a latency, some of every block.

        Slopes are of a block's latency less the mean of all of its block's, as a share of that mean.
        """
        blocks, choices = range(1, len(space.blocks) + 1), space.choices
        slopes = [f"slope b{b}" for b in blocks]
        layers = [f"b{b}/{i} {c}" for b in blocks for i in range(space.blocks[b - 1].layers) for c in choices]
        joints = [(b, first, second) for b in blocks[:-1] for first in choices for second in choices]
        names = (*slopes, *layers, *(f"b{b} {first}|{second}" for b, first, second in joints))
        column = {name: i for i, name in enumerate(names)}
        means = {b: float(np.mean([us for s, us in latency_us.items() if s.block == b])) for b in blocks}
        rows = {}
        for subnet in latency_us:
            z = np.zeros(len(names))
            z[subnet.block - 1] = latency_us[subnet] / means[subnet.block] - 1
            for i, choice in enumerate(subnet.choices):
                z[column[f"b{subnet.block}/{i} {choice}"]] = 1.0
            rows[subnet] = z
        n = len(choices)
        centre = np.eye(n) - 1 / n
        start = len(slopes) + len(layers)
        seams = {}
        for b, first, second in joints:
            z = np.zeros(len(names))
            at = start + (b - 1) * n * n
            z[at : at + n * n] = np.outer(centre[choices.index(first)], centre[choices.index(second)]).ravel()
            seams[b, first, second] = z
        group = np.repeat([0, 1, 2], [len(slopes), len(layers), len(joints)])
        of_layers = [(b,) for b in blocks for _ in range(space.blocks[b - 1].layers * n)]
        about = (*((b,) for b in blocks), *of_layers, *((b, b + 1) for b, _, _ in joints))
        return cls(names, group, about, rows, seams)

    def matrix(self, architectures: Sequence[Architecture]) -> Matrix:
        """(architectures, features)."""
        z = np.zeros((len(architectures), len(self.names)))
        for i, architecture in enumerate(architectures):
            for subnet in architecture.subnets:
                z[i] += self.rows[subnet]
            for before, after in zip(architecture.subnets, architecture.subnets[1:], strict=False):
                z[i] += self.seams[before.block, before.choices[-1], after.choices[0]]
        return z
