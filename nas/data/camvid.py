"""CamVid as it is published, in eleven classes.

| layout | images | labels | splits |
|---|---|---|---|
| SegNet's | train/, val/ | trainannot/, valannot/: class indices, or colours | the folders |
| in colours | train/, val/ | train_labels/, val_labels/: NAME_L.png, colours | the folders |
| the original | 701_StillsRaw_full/ | LabeledApproved_full/: NAME_L.png, colours | train.txt, val.txt |
| fast.ai's | images/ | labels/: NAME_P.png, lines of codes.txt | valid.txt |

Colours are those of label_colors.txt or class_dict.csv in the root, or else the official ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.camvid_colors import CLASSES, UNLABELLED, official_palette, read_codes, read_palette
from nas.data.files import Pair, PairedFiles, evenly_spaced
from nas.data.labels import Palette, label_table
from nas.data.names import Folder, Names, base_name, printable, same_name, subfolder, text_file, why_missing
from nas.data.sample import FULL_SIZE, IGNORE, Crops
from nas.data.text import read_lines
from nas.errors import DataError

TABLE = label_table({**{i: i for i in range(len(CLASSES))}, UNLABELLED: IGNORE, IGNORE: IGNORE})
LABEL_ENDINGS = ("", "_L", "_P")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
LOSSY_SUFFIXES = (".jpg", ".jpeg")
UNSPLIT = (("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels"))
LISTS = {"train": ("train.txt",), "val": ("val.txt", "valid.txt"), "test": ("test.txt",)}


@dataclass(frozen=True)
class CamVidFolders:
    """Where the images and labels of a split lie; `listed`: text files say which images are in it."""

    images: Path
    labels: Path
    palette: Palette
    table: NDArray[np.int16]
    listed: bool = False


def open_camvid(
    root: Path, split: str, size: tuple[int, int], *, count: int | None = None, crops: Crops = FULL_SIZE
) -> PairedFiles:
    """The split "train" or "val" under `root`, resized to `size` = (H, W); `count` evenly spaced of them.

    Raises:
        DataError: a folder or a label is missing, or there is no image.
    """
    found = find_folders(root, split)
    images = Folder.of(found.images).images()
    if not images.files:
        raise DataError(f"{found.images}: holds no image that can be read; unpack CamVid's {split} images there")
    files = in_split(root, split, found.images, images.files) if found.listed else images.files
    labels = Folder.of(found.labels)
    by_name = Names(labels.files)
    pairs = [Pair(image, _label(labels.path, by_name, image)) for image in files]
    used = {pair.label for pair in pairs}
    unused = () if found.listed else [file for file in labels.files if file not in used]
    return PairedFiles(
        "camvid",
        CLASSES,
        size,
        evenly_spaced(pairs, count),
        {"": found.table},
        crops,
        palette=found.palette,
        left_out=(*images.left_out, *unused),
    )


def find_folders(root: Path, split: str) -> CamVidFolders:
    """The split's folders in the first layout that fits; `DataError` if none does."""
    images = subfolder(root, split)
    if images and (labels := subfolder(root, f"{split}annot")):
        return CamVidFolders(images, labels, _palette(root, always=False), TABLE)
    if images and (labels := subfolder(root, f"{split}_labels")):
        return CamVidFolders(images, labels, _palette(root, always=True), TABLE)
    for image_name, label_name in UNSPLIT:
        stills, labels = subfolder(root, image_name), subfolder(root, label_name)
        if stills and labels:
            codes = text_file(root, "codes.txt")
            table = read_codes(codes) if codes else TABLE
            palette = _palette(root, always=label_name != "labels")
            return CamVidFolders(stills, labels, palette, table, listed=True)
    missing = root / (f"{split}annot" if images else split)
    raise DataError(
        f"{missing}: no such folder; give CamVid's root, which holds {split}/ and {split}annot/ (or {split}_labels/;"
        f" 701_StillsRaw_full/ and LabeledApproved_full/; images/ and labels/)"
        f"{why_missing(root, (split, UNSPLIT[0][0]))}"
    )


def _palette(root: Path, *, always: bool) -> Palette:
    path = text_file(root, "label_colors.txt", "class_dict.csv")
    return read_palette(path, always=always) if path else official_palette(always=always)


def _label(folder: Path, labels: Names, image: Path) -> Path:
    for ending in LABEL_ENDINGS:
        for suffix in LABEL_SUFFIXES:
            if found := labels.find(f"{image.stem}{ending}{suffix}"):
                return found
    path = folder / f"{image.stem}.png"
    for suffix in LOSSY_SUFFIXES:
        if lossy := labels.find(f"{image.stem}{suffix}"):
            raise DataError(f"{lossy}: a label in JPEG has lost its values; export it as {path.name}")
    raise DataError(f"{path}: no label for {image}; add it or remove the image")


def in_split(root: Path, split: str, folder: Path, images: Sequence[Path]) -> tuple[Path, ...]:
    """The images that the root's text files put into the split; those in no other one where it has no list.

    Raises:
        DataError: there is no list, or one names an image that is not there.
    """
    lists = {name: found for name, texts in LISTS.items() if (found := text_file(root, *texts))}
    if split not in lists and not lists.keys() & {"train", "val"}:
        raise DataError(
            f"{root}: which images are for training? {folder.name}/ holds those of every split; add train.txt and"
            " val.txt with one image name per line (SegNet's do)"
        )
    by_stem = {same_name(image.stem): image for image in images}
    if split in lists:
        chosen = set(_listed(lists[split], folder, by_stem))
        return tuple(image for image in images if image in chosen)
    others = {image for path in lists.values() for image in _listed(path, folder, by_stem, missing_ok=True)}
    return tuple(image for image in images if image not in others)


def _listed(path: Path, folder: Path, by_stem: dict[str, Path], *, missing_ok: bool = False) -> Iterator[Path]:
    """The images that a text file names, one per line: with or without folders, with its label behind it or not."""
    for line in read_lines(path):
        name = base_name(line.split()[0])
        image = by_stem.get(same_name(Path(name).stem)) or by_stem.get(same_name(name))
        if image:
            yield image
        elif not missing_ok:
            raise DataError(
                f"{path}: names '{printable(name)}', which {folder} lacks; add the image or remove the line"
            )
