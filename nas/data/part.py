"""A part of a data set, so that a search is evaluated on other images than its networks were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from nas.data.derived import Derived
from nas.data.sample import Dataset, Sample
from nas.errors import ConfigError

CHUNKS = 4  # as many places of the drive; each more has two more ends


@dataclass(frozen=True, eq=False)
class Part(Derived):
    """The samples of `data` at `indices`, in that order."""

    indices: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.data.size

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.data[self.indices[index]]

    def original(self, index: int) -> Sample:
        return self.data.original(self.indices[index])


def evenly_spaced(data: Dataset, count: int) -> Part:
    """`count` samples of `data`, evenly spaced (all, if fewer)."""
    count = min(count, len(data))
    return Part(data, tuple(i * len(data) // count for i in range(count)))


def held_out(data: Dataset, count: int) -> tuple[Part, Part]:
    """(the rest, `count` samples apart from it): evenly spaced ones, or of a video CHUNKS stretches of frames.

    The neighbour of a single frame shows the same street: in a stretch only the frames at its ends have such neighbours
    among the rest.

    Raises:
        ConfigError: one of the two would have no sample.
    """
    if not 0 < count < len(data):
        raise ConfigError(f"hold out {count} of {len(data)} images: give between 1 and {len(data) - 1}")
    chosen = _stretches(len(data), count) if data.video else evenly_spaced(data, count).indices
    rest = tuple(sorted(set(range(len(data))) - set(chosen)))
    return Part(data, rest), Part(data, chosen)


def _stretches(length: int, count: int) -> tuple[int, ...]:
    """`count` of the indices below `length`, in stretches that lie in the middle of equal parts."""
    chunks = min(CHUNKS, count)
    ends = [(i * length // chunks, i * count // chunks) for i in range(chunks + 1)]
    chosen: list[int] = []
    for (first, before), (last, after) in pairwise(ends):
        start = first + (last - first - (after - before)) // 2
        chosen += range(start, start + after - before)
    return tuple(chosen)
