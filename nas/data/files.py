"""Data sets that are pairs of image files: checked when opened, read and resized when indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.cache import SampleCache
from nas.data.sample import FULL_SIZE, Crops, Sample, TaskName
from nas.errors import DataError

T = TypeVar("T")
INVALID = -1  # in a lookup table of `label_table`: a value that the layout does not define


@dataclass(frozen=True)
class Pair:
    """One image file and the label file that belongs to it."""

    image: Path
    label: Path


def label_table(classes: Mapping[int, int]) -> NDArray[np.int16]:
    """int16 (256,): the class of each stored label value, INVALID where `classes` does not name it."""
    table = np.full(256, INVALID, np.int16)
    table[list(classes)] = list(classes.values())
    return table


def evenly_spaced(items: Sequence[T], count: int | None) -> tuple[T, ...]:
    """`count` of the items, evenly spaced; all where count is None or not smaller.

    Neighbours in these sets are frames of one drive, or of one class: the first `count` would be a single street.
    """
    if count is None or count >= len(items):
        return tuple(items)
    return tuple(items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count))


def resized(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample at `size` = (H, W): the image bilinearly, a label of every pixel to the nearest."""
    width_height = size[::-1]
    image = np.array(Image.fromarray(sample.image).resize(width_height, Image.Resampling.BILINEAR))
    if sample.label.ndim == 0:
        return Sample(image, sample.label)
    return Sample(image, np.array(Image.fromarray(sample.label).resize(width_height, Image.Resampling.NEAREST)))


@dataclass(frozen=True, eq=False)
class PairedFiles:
    """A `Dataset` over pairs of files, whose neighbours are frames of one drive.

    Attributes:
        name: of the data set.
        classes: their names, by label.
        size: (H, W) that samples are resized to, as by `resized`.
        pairs: the files.
        tables: for each pair's label, by file name ending, the table of `label_table`.
        crops: how training shows the samples.
        cache: of resized samples; originals: of those as stored. CamVid's 367 take 250 MB; of Cityscapes' 2 975, of
            8 MB each, the first 64 are kept, and the others decoded whenever they are needed.
        task: segmentation.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    pairs: tuple[Pair, ...]
    tables: Mapping[str, NDArray[np.int16]]
    crops: Crops = FULL_SIZE
    cache: SampleCache = field(default_factory=SampleCache)
    originals: SampleCache = field(default_factory=SampleCache)
    task: TaskName = field(default="segmentation", init=False)
    video: bool = field(default=True, init=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> Sample:
        """The resized sample, read-only.

        Raises:
            IndexError: past the end.
            DataError: a file is unreadable, the sizes differ or a label value is unknown.
        """
        return self.cache.get(range(len(self.pairs))[index], lambda i: resized(self._read(i), self.size))

    def original(self, index: int) -> Sample:
        """The sample as it is stored, read-only; raises as indexing does."""
        return self.originals.get(range(len(self.pairs))[index], self._read)

    def _read(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = decode(pair.image).convert("RGB")
        label = decode(pair.label)
        if label.mode not in ("L", "P"):
            raise DataError(
                f"{pair.label}: a label must be 8-bit with one channel, this one is {label.mode};"
                " store class indices, not colours"
            )
        if label.size != image.size:
            raise DataError(
                f"{pair.label}: {label.width}x{label.height}, but its image {pair.image.name} is"
                f" {image.width}x{image.height}; export the label at the image's size"
            )
        return Sample(np.array(image), self._map(np.asarray(label), pair.label))

    def _map(self, stored: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        table = next(table for ending, table in self.tables.items() if path.name.endswith(ending))
        mapped = table[stored]
        if (wrong := stored[mapped == INVALID]).size:
            known = ", ".join(_spans(np.flatnonzero(table != INVALID).tolist()))
            raise DataError(
                f"{path}: label value {int(wrong[0])} in {wrong.size} pixels, {self.name} knows {known};"
                " use the official label files or map the values"
            )
        return mapped.astype(np.uint8)


def _spans(values: Sequence[int]) -> list[str]:
    """Sorted integers as spans: [0, 1, 2, 255] -> ["0-2", "255"]."""
    starts = [v for v in values if v - 1 not in values]
    ends = [v for v in values if v + 1 not in values]
    return [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]


def decode(path: Path) -> Image.Image:
    """The image of a file; `DataError` naming it if there is none."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise DataError(f"{path}: gone since the data set was opened; restore it and open it again") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for a broken PNG chunk
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as an image ({reason}); copy the file anew") from error
