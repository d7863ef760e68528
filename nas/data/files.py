"""Data sets that are pairs of image files: checked when opened, read and resized when indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.cache import SampleCache
from nas.data.images import QUARTER_TURNED, read_facts, read_rgb, verified_size
from nas.data.labels import Palette, classes_of, stored_values
from nas.data.names import same_name
from nas.data.sample import FULL_SIZE, Crops, Sample, TaskName
from nas.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """One image file and the label file that belongs to it."""

    image: Path
    label: Path


@dataclass(frozen=True, eq=False)
class Examined:
    """What the files of one sample hold.

    Attributes:
        size: (H, W) of the upright image.
        label: the classes, uint8 (H, W), or int64 () for the image.
        image: uint8 (H, W, 3); None where its file was only verified.
        stored: the label file's values, uint8 (H, W); None with one label per image.
    """

    size: tuple[int, int]
    label: NDArray[np.uint8] | NDArray[np.int64]
    image: NDArray[np.uint8] | None = None
    stored: NDArray[np.uint8] | None = None


@runtime_checkable
class StoredFiles(Protocol):
    """A `Dataset` over files. `left_out`: what lies beside them and is no image."""

    @property
    def left_out(self) -> tuple[Path, ...]: ...

    def __len__(self) -> int: ...

    def sources(self, index: int) -> tuple[Path, ...]:
        """The files of a sample, its image first."""
        ...

    def examine(self, index: int, *, fully: bool) -> Examined:
        """Read a sample past all caches; not `fully`: the image's file is only verified (`verified_size`).

        Raises:
            DataError: a file is bad.
        """
        ...


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
        palette: what colours in label files stand for; None: they may hold values only.
        left_out: files beside the images that are none.
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
    palette: Palette | None = None
    left_out: tuple[Path, ...] = ()
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

    def sources(self, index: int) -> tuple[Path, ...]:
        """The image's file and the label's."""
        pair = self.pairs[index]
        return pair.image, pair.label

    def examine(self, index: int, *, fully: bool) -> Examined:
        """The sample and its stored label values, past all caches; raises as indexing does."""
        pair = self.pairs[index]
        image = read_rgb(pair.image) if fully else None
        stored = stored_values(pair.label, self.palette)
        size = verified_size(pair.image) if image is None else (image.shape[0], image.shape[1])
        if stored.shape != size:
            if image is None:  # an orientation behind a PNG's pixels shows only when all is read
                return self.examine(index, fully=True)
            raise DataError(_sizes_differ(pair, stored.shape, size))
        table = self._table(pair.label)
        return Examined(size, classes_of(stored, table, pair.label, self.name), image, stored)

    def _table(self, label: Path) -> NDArray[np.int16]:
        name = same_name(label.name)
        return next(table for ending, table in self.tables.items() if name.endswith(same_name(ending)))

    def _read(self, index: int) -> Sample:
        found = self.examine(index, fully=True)
        if found.image is None:
            raise AssertionError("examined fully")
        return Sample(found.image, found.label)


def _sizes_differ(pair: Pair, label: tuple[int, ...], image: tuple[int, int]) -> str:
    (height, width), name = image, pair.image.name
    shown = f"{pair.label}: {label[1]}x{label[0]}, but its image {name} is {width}x{height}"
    if label == image[::-1] and read_facts(pair.image).orientation >= QUARTER_TURNED:
        return (
            f"{shown} as its EXIF orientation turns it; turn the label too, or, where labels are drawn on pixels as"
            " stored, remove the orientation from every image (exiftool -Orientation= FOLDER)"
        )
    return f"{shown}; export the label at the image's size"
