"""CamVid in SegNet's layout: {train,val}/*.jpg|png beside {train,val}annot/*.png, eleven classes."""

from __future__ import annotations

from pathlib import Path

from nas.data.files import Pair, PairedFiles, evenly_spaced, label_table
from nas.data.sample import FULL_SIZE, IGNORE, Crops
from nas.errors import DataError

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
UNLABELLED = 11
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
TABLE = label_table({**{i: i for i in range(len(CLASSES))}, UNLABELLED: IGNORE})


def open_camvid(
    root: Path, split: str, size: tuple[int, int], *, count: int | None = None, crops: Crops = FULL_SIZE
) -> PairedFiles:
    """The split "train" or "val" under `root`, resized to `size` = (H, W); `count` evenly spaced of them.

    Raises:
        DataError: a folder or a label is missing, or there is no image.
    """
    images, labels = root / split, root / f"{split}annot"
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; give CamVid's root, which holds {images.name}/ and {labels.name}/"
            )
    found = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"{images}: holds no .jpg or .png image; unpack CamVid's {split} images there")
    pairs = [Pair(image, labels / f"{image.stem}.png") for image in found]
    for pair in pairs:
        if not pair.label.is_file():
            raise DataError(f"{pair.label}: no label for {pair.image}; add it or remove the image")
    return PairedFiles("camvid", CLASSES, size, evenly_spaced(pairs, count), {".png": TABLE}, crops)
