"""Cityscapes in its official layout: {leftImg8bit,gtFine}/{split}/{city}/, nineteen classes."""

from __future__ import annotations

from pathlib import Path

from nas.data.files import Pair, PairedFiles, evenly_spaced, label_table
from nas.data.sample import FULL_SIZE, IGNORE, Crops
from nas.errors import DataError

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
# Ids of the classes above, in order, and the highest id: cityscapesScripts, helpers/labels.py.
TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LAST_ID = 33
IMAGE_ENDING = "_leftImg8bit.png"
IDS_ENDING = "_gtFine_labelIds.png"
TRAIN_IDS_ENDING = "_gtFine_labelTrainIds.png"
TABLES = {
    IDS_ENDING: label_table(
        {
            **dict.fromkeys((*range(LAST_ID + 1), IGNORE), IGNORE),  # 255 is how id -1 is stored
            **{stored: index for index, stored in enumerate(TRAIN_IDS)},
        }
    ),
    TRAIN_IDS_ENDING: label_table({**{i: i for i in range(len(CLASSES))}, IGNORE: IGNORE}),
}


def open_cityscapes(
    root: Path, split: str, size: tuple[int, int], *, count: int | None = None, crops: Crops = FULL_SIZE
) -> PairedFiles:
    """The split "train" or "val" under `root`, resized to `size` = (H, W); `count` evenly spaced of them.

    Raises:
        DataError: a folder or a label is missing, or there is no image.
    """
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give Cityscapes' root, which holds leftImg8bit/ and gtFine/")
    found = sorted(images.glob(f"*/*{IMAGE_ENDING}"))
    if not found:
        raise DataError(f"{images}: holds no city/*{IMAGE_ENDING}; unpack leftImg8bit_trainvaltest.zip there")
    pairs = [Pair(image, _label(image, labels)) for image in found]
    return PairedFiles("cityscapes", CLASSES, size, evenly_spaced(pairs, count), TABLES, crops)


def _label(image: Path, labels: Path) -> Path:
    stem = image.name.removesuffix(IMAGE_ENDING)
    folder = labels / image.parent.name
    for ending in (TRAIN_IDS_ENDING, IDS_ENDING):
        if (path := folder / f"{stem}{ending}").is_file():
            return path
    raise DataError(f"{folder / f'{stem}{IDS_ENDING}'}: no label for {image}; add it or remove the image")
