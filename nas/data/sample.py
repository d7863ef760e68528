"""What a data set is: samples of one size, counted and indexed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

IGNORE = 255  # the label of pixels that count neither in training nor in evaluation
RGB_CHANNELS = 3
TaskName: TypeAlias = Literal["segmentation", "classification"]
"""What labels mean, and so what is trained and evaluated: a key of `nas.tasks.task.TASKS`."""


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its label: a class index for every pixel (segmentation) or for the image (classification).

    Attributes:
        image: uint8 (H, W, 3), RGB.
        label: uint8 (H, W), IGNORE where unlabelled; or int64 ().

    Raises:
        DataError: the arrays have other types or their shapes do not match.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8] | NDArray[np.int64]

    def __post_init__(self) -> None:
        wanted = np.uint8 if self.label.ndim else np.int64
        if self.image.dtype != np.uint8 or self.label.dtype != wanted:
            raise DataError(
                f"sample: image is {self.image.dtype}, label {self.label.dtype};"
                " convert both to uint8, a label of the full image to int64"
            )
        matching = self.image.shape[:2] == self.label.shape or self.label.ndim == 0
        if not matching or self.image.ndim != 3 or self.image.shape[2] != RGB_CHANNELS:
            raise DataError(
                f"sample: image {self.image.shape} and label {self.label.shape} do not match;"
                " give (H, W, 3) and (H, W), or () for a label of the full image"
            )


class Dataset(Protocol):
    """A data set: equal indices give equal samples, all of `size` = (H, W).

    `__getitem__` raises IndexError past the end, so that a `for` loop works, and DataError for a bad file.
    """

    @property
    def name(self) -> str: ...

    @property
    def task(self) -> TaskName: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...
