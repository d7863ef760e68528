"""A part of a data set, so that what a search is judged on is not what its networks were trained on."""

from __future__ import annotations

from dataclasses import dataclass

from nas.data.sample import Dataset, Sample, TaskName
from nas.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Part:
    """The samples of `whole` at `indices`, in that order."""

    whole: Dataset
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def task(self) -> TaskName:
        return self.whole.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self.whole.classes

    @property
    def size(self) -> tuple[int, int]:
        return self.whole.size

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.whole[self.indices[index]]


def held_out(data: Dataset, count: int) -> tuple[Part, Part]:
    """(the rest, `count` samples at even distances); `ConfigError` unless both have samples."""
    if not 0 < count < len(data):
        raise ConfigError(f"hold out {count} of {len(data)} images: at least one must stay on either side")
    apart = tuple(i * len(data) // count for i in range(count))
    rest = tuple(sorted(set(range(len(data))) - set(apart)))
    return Part(data, rest), Part(data, apart)
