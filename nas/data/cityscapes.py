"""Cityscapes in its official layout: {leftImg8bit,gtFine}/{split}/{city}/, nineteen classes."""

from __future__ import annotations

from pathlib import Path

from nas.data.files import Pair, PairedFiles, evenly_spaced
from nas.data.labels import label_table
from nas.data.names import Folder, Names, subfolder, why_missing
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
IMAGE_ENDING = "_leftImg8bit"
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
    images, labels = (_split_folder(root, name, split) for name in ("leftImg8bit", "gtFine"))
    cities = Folder.of(images)
    left_out, pairs = list(cities.files), list[Pair]()
    for city in cities.folders:
        inside = Folder.of(city).images()
        frames = [file for file in inside.files if file.stem.endswith(IMAGE_ENDING)]
        left_out += [*inside.left_out, *(file for file in inside.files if not file.stem.endswith(IMAGE_ENDING))]
        if frames:
            folder = subfolder(labels, city.name)
            by_name = Names(Folder.of(folder).files) if folder else Names(())
            pairs += [Pair(frame, _label(frame, folder or labels / city.name, by_name)) for frame in frames]
    if not pairs:
        raise DataError(f"{images}: holds no city/*{IMAGE_ENDING}.png; unpack leftImg8bit_trainvaltest.zip there")
    return PairedFiles(
        "cityscapes", CLASSES, size, evenly_spaced(pairs, count), TABLES, crops, left_out=tuple(left_out)
    )


def _split_folder(root: Path, name: str, split: str) -> Path:
    folder = subfolder(root, name)
    inside = subfolder(folder, split) if folder else None
    if inside is None:
        raise DataError(
            f"{root / name / split}: no such folder; give Cityscapes' root, which holds leftImg8bit/ and gtFine/"
            f"{why_missing(root, ('leftImg8bit', 'gtFine'))}"
        )
    return inside


def _label(image: Path, folder: Path, labels: Names) -> Path:
    stem = image.stem.removesuffix(IMAGE_ENDING)
    for ending in (TRAIN_IDS_ENDING, IDS_ENDING):
        if path := labels.find(f"{stem}{ending}"):
            return path
    raise DataError(f"{folder / f'{stem}{IDS_ENDING}'}: no label for {image}; add it or remove the image")
