"""A part of a data set, so that a search is evaluated on other images than its networks were trained on."""

from __future__ import annotations

from dataclasses import dataclass

from nas.data.sample import Dataset, Sample, TaskName
from nas.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Part:
    """The samples of `data` at `indices`, in that order."""

    data: Dataset
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def task(self) -> TaskName:
        return self.data.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def size(self) -> tuple[int, int]:
        return self.data.size

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.data[self.indices[index]]


def held_out(data: Dataset, count: int) -> tuple[Part, Part]:
    """(the rest, `count` evenly spaced samples); `ConfigError` unless both have samples."""
    if not 0 < count < len(data):
        raise ConfigError(f"hold out {count} of {len(data)} images: give between 1 and {len(data) - 1}")
    chosen = tuple(i * len(data) // count for i in range(count))
    rest = tuple(sorted(set(range(len(data))) - set(chosen)))
    return Part(data, rest), Part(data, chosen)
