"""A classification data set of real images: squares of a segmentation data set that show one class.

As folders per class, `folders:` reads it. Squares lie on a grid, so that none overlap, and keep their split.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.run.folder import Progress
from hil.errors import UsageError
from nas.data import Dataset, open_data
from nas.data.files import evenly_spaced
from nas.data.sample import IGNORE

STAGE = "patches"


@dataclass(frozen=True)
class Patches:
    """Which squares.

    Attributes:
        side: in pixels of the images at `size` = (H, W).
        share: of a square's pixels that have its class, at least.
        train, val: squares of each class, at most; of more, evenly spaced ones. A class with fewer than a tenth of them
            is left out.
    """

    size: tuple[int, int]
    side: int = 48
    share: float = 0.75
    train: int = 200
    val: int = 50

    @property
    def most(self) -> Mapping[str, int]:
        """By split."""
        return {"train": self.train, "val": self.val}


def write_patches(spec: str, patches: Patches, out: Path) -> Iterator[Progress]:
    """OUT/SPLIT/CLASS/*.png, all or nothing. Raises `UsageError` where `out` is there or a class is nowhere."""
    if out.exists():
        raise UsageError(f"{out}: is there already; give a new folder, or delete it")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    places: dict[str, list[list[Square]]] = {}
    data = {split: open_data(spec, split, patches.size) for split in patches.most}
    for split, images in data.items():
        if images.task != "segmentation":
            raise UsageError(f"{spec}: squares are cut by the labels of pixels; name a segmentation data set")
        places[split] = [[] for _ in images.classes]
        for index in range(len(images)):
            for square in squares(images[index].label, index, patches):
                places[split][square.label].append(square)
            yield Progress(STAGE, index + 1, len(images), f"{split}: labels read")
    classes = data["train"].classes
    kept = [
        label
        for label in range(len(classes))
        if all(len(places[split][label]) >= max(1, most // 10) for split, most in patches.most.items())
    ]
    if len(kept) < 2:
        raise UsageError(f"{spec}: {len(kept)} classes have squares in both splits; two are the least")
    for split, images in data.items():
        chosen = [evenly_spaced(places[split][label], patches.most[split]) for label in kept]
        yield from _write(images, [square for squares in chosen for square in squares], patches.side, part / split)
    part.rename(out)


@dataclass(frozen=True)
class Square:
    """Of an image by its index: its label and its upper left corner, in pixels."""

    label: int
    image: int
    y: int
    x: int


def squares(label: NDArray[np.integer], image: int, patches: Patches) -> Iterator[Square]:
    """Those of an image's label map (H, W) that show one class."""
    height, width = label.shape
    for y in range(0, height - patches.side + 1, patches.side):
        for x in range(0, width - patches.side + 1, patches.side):
            values, counts = np.unique(label[y : y + patches.side, x : x + patches.side], return_counts=True)
            most = int(np.argmax(counts))
            if counts[most] >= patches.share * patches.side**2 and values[most] != IGNORE:
                yield Square(int(values[most]), image, y, x)


def _write(images: Dataset, chosen: Sequence[Square], side: int, folder: Path) -> Iterator[Progress]:
    by_image: dict[int, list[Square]] = {}
    for square in chosen:
        by_image.setdefault(square.image, []).append(square)
    for done, (index, found) in enumerate(sorted(by_image.items()), start=1):
        pixels = images[index].image
        for square in found:
            target = folder / images.classes[square.label].replace("/", "-").replace(" ", "_")
            target.mkdir(parents=True, exist_ok=True)
            cut = pixels[square.y : square.y + side, square.x : square.x + side]
            Image.fromarray(np.ascontiguousarray(cut)).save(target / f"{index:05}-{square.y:04}-{square.x:04}.png")
        yield Progress(STAGE, done, len(by_image), f"{folder.name}: images written")
