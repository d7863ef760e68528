"""What a data set is: samples of one size, counted and indexed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

IGNORE = 255  # the label of pixels that neither train nor count
RGB_CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its label map, pixel for pixel.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        label: uint8 (H, W), class indices; IGNORE where unlabelled.

    Raises:
        DataError: the arrays have other types or do not cover each other.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.label.dtype != np.uint8:
            raise DataError(f"sample: image is {self.image.dtype}, label {self.label.dtype}; convert both to uint8")
        if self.image.shape != (*self.label.shape, RGB_CHANNELS) or self.label.ndim != 2:
            raise DataError(
                f"sample: image {self.image.shape} and label {self.label.shape} do not cover each other;"
                " give (H, W, 3) and (H, W)"
            )


class SegmentationData(Protocol):
    """A data set: equal indices give equal samples, all of `size` = (H, W).

    `__getitem__` raises IndexError past the end, so that a `for` loop works, and DataError for a bad file.
    """

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...
