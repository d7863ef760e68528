"""Small data sets on disk, in the layouts of CamVid and Cityscapes, and as one folder per class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGE_SIZE = (24, 32)


def write_image(path: Path, size: tuple[int, int] = IMAGE_SIZE, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_label(path: Path, values: list[int], size: tuple[int, int] = IMAGE_SIZE) -> None:
    """The values as vertical stripes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.array(values, np.uint8)[np.arange(size[1]) * len(values) // size[1]]
    Image.fromarray(np.tile(columns, (size[0], 1))).save(path)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Five training images, png, and two validation images, jpg, with every class and the unlabelled."""
    for split, count, ending in (("train", 5, "png"), ("val", 2, "jpg")):
        for i in range(count):
            write_image(tmp_path / split / f"{i:02}.{ending}", seed=i)
            write_label(tmp_path / f"{split}annot" / f"{i:02}.png", list(range(12)))
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Two towns in train; ids 0-33 and 255 in one, train ids beside wrong ids in the other."""
    images, labels = tmp_path / "leftImg8bit" / "train", tmp_path / "gtFine" / "train"
    for town in ("aachen", "bochum"):
        write_image(images / town / f"{town}_0_leftImg8bit.png", (24, 70))
    write_label(labels / "aachen" / "aachen_0_gtFine_labelIds.png", [*range(34), 255], (24, 70))
    write_label(labels / "bochum" / "bochum_0_gtFine_labelIds.png", [0], (24, 70))
    write_label(labels / "bochum" / "bochum_0_gtFine_labelTrainIds.png", [*range(19), 255], (24, 70))
    return tmp_path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three classes of 4, 2 and 3 training images, and one validation image of each."""
    for name, count in (("cat", 4), ("dog", 2), ("newt", 3)):
        for i in range(count):
            write_image(tmp_path / "train" / name / f"{i}.{('png', 'JPEG')[i % 2]}", seed=i)
        write_image(tmp_path / "val" / name / "0.png", seed=9)
    return tmp_path


@pytest.fixture
def image_writer() -> Callable[..., None]:
    return write_image


@pytest.fixture
def label_writer() -> Callable[..., None]:
    return write_label
