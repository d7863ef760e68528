"""The middle of a data set's samples, for networks that see no more of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.data.derived import Derived
from nas.data.sample import Sample

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Middle(Derived):
    """The middle `size` = (H, W) of each sample of `data`, which is at least as large; `original` is the sample's."""

    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.data[index]
        if sample.label.ndim == 0:  # a class of the image
            return Sample(middle(sample.image, self.size), sample.label)
        return Sample(middle(sample.image, self.size), np.asarray(middle(sample.label, self.size), np.uint8))

    def original(self, index: int) -> Sample:
        return self.data.original(index)


def middle(values: NDArray[Number], size: tuple[int, int]) -> NDArray[Number]:
    """(H, W, ...) of the middle of an image or a label map (h, w, ...)."""
    top, left = ((n - m) // 2 for n, m in zip(values.shape, size, strict=False))
    return values[top : top + size[0], left : left + size[1]]
