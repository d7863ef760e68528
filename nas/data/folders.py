"""One folder per class: ROOT/train/CLASS/*.jpg|png and ROOT/val/CLASS/*, as ImageNet, Imagenette or CIFAR-10 unpack.

The classes are the folders of train, in the order of their names. ROOT/labels.txt may name what they show, one line
each: "n01440764 tench, Tinca tinca" (ImageNet's LOC_synset_mapping.txt is such a file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.cache import SampleCache
from nas.data.files import decode, evenly_spaced, resized
from nas.data.sample import FULL_SIZE, Crops, Sample, TaskName
from nas.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
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
    kept at MOST times `size` at most.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    files: tuple[Labelled, ...]
    crops: Crops = FULL_SIZE
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

    def _reduced(self, index: int) -> Sample:
        sample, most = self._read(index), max(MOST, self.crops.scales[1] if self.crops.scales else 0)
        height, width = (min(n, round(most * m)) for n, m in zip(sample.image.shape[:2], self.size, strict=True))
        return sample if (height, width) == sample.image.shape[:2] else resized(sample, (height, width))

    def _read(self, index: int) -> Sample:
        file = self.files[index]
        return Sample(np.array(decode(file.image).convert("RGB")), np.array(file.label, np.int64))


def open_folders(
    root: Path, split: str, size: tuple[int, int], *, count: int | None = None, crops: Crops = FULL_SIZE
) -> LabelledFiles:
    """The split "train" or "val" under `root`, resized to `size` = (H, W); `count` evenly spaced of them.

    Raises:
        DataError: a folder is missing or holds no image, there are fewer than two classes, val has a class that
            train lacks, or labels.txt lacks one.
    """
    train, images = (_split_folder(root, name) for name in ("train", split))
    names = _class_folders(train)
    if len(names) < 2:
        raise DataError(f"{train}: {len(names)} class folders; give at least 2")
    index = {name: i for i, name in enumerate(names)}
    found: list[Labelled] = []
    for name in _class_folders(images):
        if name not in index:
            raise DataError(
                f"{images / name}: {train} has no class '{name}'; add its images there or remove this folder"
            )
        files = sorted(p for p in (images / name).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"{images / name}: holds no .jpg or .png image; add some or remove the folder")
        found += [Labelled(path, index[name]) for path in files]
    if not found:
        raise DataError(f"{images}: holds no class folder; put the images of class X into {images / 'X'}")
    return LabelledFiles("folders", _labels(root, names), size, evenly_spaced(found, count), crops)


def _split_folder(root: Path, split: str) -> Path:
    for name in SPLIT_FOLDERS[split]:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split])
    raise DataError(f"{root / split}: no such folder; give a folder that holds {wanted}, with one folder per class")


def _class_folders(split: Path) -> list[str]:
    return sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def _labels(root: Path, names: list[str]) -> tuple[str, ...]:
    """The names of the classes: from labels.txt, or of their folders."""
    path = root / LABELS
    if not path.is_file():
        return tuple(names)
    try:
        lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf8").splitlines() if line.strip())
        known = {words[0]: words[-1].strip() for words in lines}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); write it in UTF-8 or remove it") from None
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"{path}: names {len(known)} classes and not '{missing[0]}', one of the {len(names)} folders of train;"
            f" add a line '{missing[0]} WHAT IT SHOWS' or remove the file"
        )
    return tuple(known[name] for name in names)
