"""One folder per class: what is read, and every way in which the folders can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import Crops, open_data
from nas.data.folders import LABELS, LabelledFiles, open_folders
from nas.errors import DataError

SIZE = (24, 32)


def opened(root: Path, split: str = "train", count: int | None = None) -> LabelledFiles:
    return open_folders(root, split, SIZE, count=count)


def labels(data: LabelledFiles) -> list[int]:
    return [int(sample.label) for sample in data]


def test_the_folders_of_train_are_the_classes(folders: Path) -> None:
    train, val = opened(folders), opened(folders, "val")
    assert train.classes == val.classes == ("cat", "dog", "newt")
    assert labels(train) == [0, 0, 0, 0, 1, 1, 2, 2, 2] and labels(val) == [0, 1, 2]
    stored = np.asarray(Image.open(folders / "train" / "cat" / "2.png"))
    np.testing.assert_array_equal(train[2].image, stored)
    assert open_data(f"folders:{folders}", "train", (10, 12))[0].image.shape == (10, 12, 3)


def test_a_validation_split_may_lack_a_class_and_keeps_the_indices(folders: Path) -> None:
    shutil.rmtree(folders / "val" / "dog")
    assert labels(opened(folders, "val")) == [0, 2]


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_other_names_of_the_validation_split(folders: Path, name: str) -> None:
    (folders / "val").rename(folders / name)
    assert labels(opened(folders, "val")) == [0, 1, 2]


def test_count_takes_from_every_class(folders: Path) -> None:
    assert labels(opened(folders, count=3)) == [0, 1, 2]
    assert len(opened(folders, count=99)) == 9


def test_labels_say_what_the_folders_show(folders: Path) -> None:
    (folders / LABELS).write_text("newt smooth newt, Lissotriton\ncat  tabby\n\ndog\nunused thing\n")
    assert opened(folders).classes == ("tabby", "dog", "smooth newt, Lissotriton")


def test_other_files_and_hidden_folders_are_no_classes(folders: Path) -> None:
    (folders / "train" / "notes.txt").write_text("bought in May")
    (folders / "train" / ".cache").mkdir()
    (folders / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    assert len(opened(folders)) == 9


def _empty(root: Path) -> None:
    for path in (root / "train" / "dog").iterdir():
        path.unlink()


def _unknown(root: Path) -> None:
    (root / "val" / "gnu").mkdir()


def _one_class(root: Path) -> None:
    for name in ("cat", "dog"):
        shutil.rmtree(root / "train" / name)


def _no_classes_in_val(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()


def _too_few_labels(root: Path) -> None:
    (root / LABELS).write_text("cat tabby\nnewt newt\n")


def _no_text(root: Path) -> None:
    (root / LABELS).write_bytes(b"cat \xff\xfe")


@pytest.mark.parametrize(
    ("split", "damage", "says"),
    [
        ("train", lambda root: shutil.rmtree(root / "train"), "train: no such folder; give a folder that holds train/"),
        ("val", lambda root: shutil.rmtree(root / "val"), "holds val/ or valid/ or validation/ or test/"),
        ("train", _empty, "train/dog: holds no image that can be read; add some or remove"),
        ("val", _unknown, "val/gnu: "),
        ("val", _unknown, "has no class 'gnu'; add its images there or remove"),
        ("train", _one_class, "train: 1 class folders; give at least 2"),
        ("val", _no_classes_in_val, "val: holds no class folder"),
        ("train", _too_few_labels, "labels.txt: names 2 classes and not 'dog', one of the 3 folders of train"),
        ("train", _no_text, "labels.txt: cannot be read as text"),
    ],
)
def test_what_is_wrong_with_the_folders(folders: Path, split: str, damage: Callable[[Path], None], says: str) -> None:
    damage(folders)
    with pytest.raises(DataError) as caught:
        opened(folders, split)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_unreadable_image_is_named(folders: Path) -> None:
    path = folders / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"cat/0\.png: cannot be read as an image"):
        opened(folders)[0]
    path.unlink()
    data = opened(folders)
    (folders / "train" / "cat" / "2.png").unlink()
    with pytest.raises(DataError, match="gone since"):
        data[labels_index(data, "2.png")]


def labels_index(data: LabelledFiles, name: str) -> int:
    return next(i for i, found in enumerate(data.files) if found.image.name == name)


def test_a_photograph_is_kept_at_twice_the_deployed_size(folders: Path) -> None:
    """What is smaller is kept as it is stored, 24x32."""
    sizes = ((10, 12), (10, 20))
    kept = {size: open_data(f"folders:{folders}", "train", size).original(1).image.shape for size in sizes}
    assert kept == {(10, 12): (20, 24, 3), (10, 20): (20, 32, 3)}
    wide = open_data(f"folders:{folders}", "train", (10, 20), crops=Crops(None, (1.0, 3.0)))
    assert wide.original(1).image.shape == (24, 32, 3)
