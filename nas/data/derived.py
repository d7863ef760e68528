"""What data sets that are made from another one have of it."""

from __future__ import annotations

from dataclasses import dataclass

from nas.data.sample import Crops, Dataset, TaskName


@dataclass(frozen=True, eq=False)
class Derived:
    """All of `data` but its samples and their size."""

    data: Dataset

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
    def crops(self) -> Crops:
        return self.data.crops

    @property
    def video(self) -> bool:
        return self.data.video
