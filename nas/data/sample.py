"""What a data set is: samples of one size, counted and indexed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError, DataError

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


@dataclass(frozen=True)
class Crops:
    """What training crops measure and show (`nas.data.augment.training_augment`).

    Attributes:
        size: (H, W) of a crop; None: the data set's size.
        scales: lowest and highest scale; at 1 the image is shown at the data set's size. None: the task's.

    Raises:
        ConfigError: a value cannot be used.
    """

    size: tuple[int, int] | None = None
    scales: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"crop {self.size[0]}x{self.size[1]}: give a positive height and width")
        if self.scales is not None and not 0 < self.scales[0] <= self.scales[1] < math.inf:
            raise ConfigError(f"scales {list(self.scales)}: give 0 < lowest <= highest")


FULL_SIZE = Crops()


class Dataset(Protocol):
    """A data set: equal indices give equal samples, all of `size` = (H, W), which is what is deployed and evaluated.

    `original(i)` is sample i at its own resolution, whatever that is, from which training crops are cut; resized to
    `size` it is sample i. `video` says that neighbours are frames of one drive, nearly equal; `crops` how training
    shows the samples.

    `__getitem__` and `original` raise IndexError past the end, so that a `for` loop works; DataError for a bad file.
    """

    @property
    def name(self) -> str: ...

    @property
    def task(self) -> TaskName: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def crops(self) -> Crops: ...

    @property
    def video(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def original(self, index: int) -> Sample: ...
