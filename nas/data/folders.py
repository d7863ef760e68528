"""One folder per class: ROOT/train/CLASS/*.jpg|png|... and ROOT/val/CLASS/*, as of ImageNet, Imagenette or CIFAR-10.

The classes are the folders of train, in the order of their names. ROOT/labels.txt may name what they show, one line
each: "n01440764 tench, Tinca tinca" (ImageNet's LOC_synset_mapping.txt is such a file).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.cache import SampleCache
from nas.data.files import Examined, evenly_spaced, resized
from nas.data.images import read_rgb, verified_size
from nas.data.names import Folder, Names, printable, same_name, subfolder, text_file, why_missing
from nas.data.sample import FULL_SIZE, Crops, Sample, TaskName
from nas.data.text import read_lines
from nas.errors import DataError

SPLIT_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation", "test"),
    "test": ("test",),
}
LABELS = "labels.txt"
MOST = 2  # what is larger than MOST times the deployed size is kept at that


@dataclass(frozen=True)
class Labelled:
    """One image file and the index of its class."""

    image: Path
    label: int


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """A classification `Dataset` over image files, resized bilinearly to `size` = (H, W), whatever their shape.

    Of a photograph of megapixels crops show little of what is stored, and a cache would hold a handful: originals are
    kept at MOST times `size` at most. `left_out`: what lies beside the images and class folders.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    files: tuple[Labelled, ...]
    crops: Crops = FULL_SIZE
    left_out: tuple[Path, ...] = ()
    cache: SampleCache = field(default_factory=SampleCache)
    originals: SampleCache = field(default_factory=SampleCache)
    task: TaskName = field(default="classification", init=False)
    video: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Sample:
        """The resized sample, read-only; IndexError past the end, `DataError` for an unreadable file."""
        return self.cache.get(range(len(self.files))[index], lambda i: resized(self._read(i), self.size))

    def original(self, index: int) -> Sample:
        """The sample as it is stored, or at MOST times `size`; read-only, raises as indexing does."""
        return self.originals.get(range(len(self.files))[index], self._reduced)

    def sources(self, index: int) -> tuple[Path, ...]:
        """The image's file."""
        return (self.files[index].image,)

    def examine(self, index: int, *, fully: bool) -> Examined:
        """The sample past all caches; raises as indexing does."""
        file = self.files[index]
        label = np.array(file.label, np.int64)
        if not fully:
            return Examined(verified_size(file.image), label)
        image = read_rgb(file.image)
        return Examined((image.shape[0], image.shape[1]), label, image)

    def _reduced(self, index: int) -> Sample:
        sample, most = self._read(index), max(MOST, self.crops.scales[1] if self.crops.scales else 0)
        height, width = (min(n, round(most * m)) for n, m in zip(sample.image.shape[:2], self.size, strict=True))
        return sample if (height, width) == sample.image.shape[:2] else resized(sample, (height, width))

    def _read(self, index: int) -> Sample:
        file = self.files[index]
        return Sample(read_rgb(file.image), np.array(file.label, np.int64))


def open_folders(
    root: Path, split: str, size: tuple[int, int], *, count: int | None = None, crops: Crops = FULL_SIZE
) -> LabelledFiles:
    """The split "train" or "val" under `root`, resized to `size` = (H, W); `count` evenly spaced of them.

    Raises:
        DataError: a folder is missing or holds no image, there are fewer than two classes, val has a class that
            train lacks, or labels.txt lacks one.
    """
    train, images = (_split_folder(root, name) for name in ("train", split))
    classes = Folder.of(train).folders
    if len(classes) < 2:
        raise DataError(f"{train}: {len(classes)} class folders; give at least 2")
    names, index = Names(classes), {folder.name: i for i, folder in enumerate(classes)}
    inside = Folder.of(images)
    found: list[Labelled] = []
    left_out = list(inside.files)
    for folder in inside.folders:
        known = names.find(folder.name)
        if known is None:
            raise DataError(
                f"{folder}: {train} has no class '{printable(folder.name)}'; add its images there or remove this folder"
            )
        listed = Folder.of(folder).images()
        if not listed.files:
            raise DataError(f"{folder}: holds no image that can be read; add some or remove the folder")
        found += [Labelled(path, index[known.name]) for path in listed.files]
        left_out += listed.left_out
    if not found:
        raise DataError(f"{images}: holds no class folder; put the images of class X into {images / 'X'}")
    shown = _labels(root, [folder.name for folder in classes])
    return LabelledFiles("folders", shown, size, evenly_spaced(found, count), crops, tuple(left_out))


def _split_folder(root: Path, split: str) -> Path:
    if found := subfolder(root, *SPLIT_FOLDERS[split]):
        return found
    wanted = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split])
    raise DataError(
        f"{root / split}: no such folder; give a folder that holds {wanted}, with one folder per class"
        f"{why_missing(root, SPLIT_FOLDERS[split])}"
    )


def _labels(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes: from labels.txt, or of their folders."""
    path = text_file(root, LABELS)
    if path is None:
        return tuple(map(printable, names))
    lines = [line.split(maxsplit=1) for line in read_lines(path)]
    known = {words[0]: words[-1].strip() for words in lines}
    alike = {same_name(word): text for word, text in known.items()}
    shown = [known.get(name) or alike.get(same_name(name)) for name in names]
    missing = [name for name, text in zip(names, shown, strict=True) if text is None]
    if missing:
        raise DataError(
            f"{path}: names {len(known)} classes and not '{printable(missing[0])}', one of the {len(names)} folders of"
            f" train; add a line '{printable(missing[0])} WHAT IT SHOWS' or remove the file"
        )
    return tuple(printable(text) for text in shown if text is not None)
