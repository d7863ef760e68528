"""Names as other systems write them, text files with marks, and what lies beside the images."""

from __future__ import annotations

import logging
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import open_data
from nas.data.names import printable
from nas.data.text import read_lines
from nas.errors import DataError

SIZE = (24, 32)


def save(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, SIZE[::-1], 3 if mode == "L" else "red").save(path)


def labels(root: Path, split: str = "train") -> list[int]:
    return [int(sample.label) for sample in open_data(f"folders:{root}", split, SIZE)]


def test_what_systems_leave_behind_is_skipped(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("Thumbs.db", ".DS_Store", "._0.png", "desktop.ini"):
        (folders / "train" / "cat" / name).write_bytes(b"litter")
    save(folders / "train" / "cat" / "@eaDir" / "0.png")
    save(folders / "train" / "__MACOSX" / "._0.png")
    (folders / "train" / ".ipynb_checkpoints").mkdir()
    with caplog.at_level(logging.WARNING):
        assert labels(folders) == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert caplog.messages == []


def test_what_is_left_out_is_counted_aloud_once(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(3):
        (folders / "train" / "cat" / f"{i}.HEIC").write_bytes(b"")
    (folders / "train" / "notes.txt").write_text("bought in May")
    save(folders / "train" / "dog" / "more" / "0.png")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            open_data(f"folders:{folders}", "train", SIZE)
        open_data(f"folders:{folders}", "val", SIZE)
    (text,) = caplog.messages
    assert text.startswith(f"folders:{folders}, train: left out: 3 .heic, 1 ")
    assert "1 folder" in text and "1 .txt" in text and "convert .heic photos to JPEG" in text


def test_formats_that_were_left_out_before_are_read(folders: Path) -> None:
    for i in range(5):
        save(folders / "train" / "dog" / f"x{i}.webp")
    assert labels(folders) == [0] * 4 + [1] * 7 + [2] * 3


def test_class_folders_of_another_case(folders: Path) -> None:
    (folders / "train").rename(folders / "Train")
    (folders / "val").rename(folders / "VAL")
    (folders / "VAL" / "cat").rename(folders / "VAL" / "Cat")
    assert labels(folders) == [0, 0, 0, 0, 1, 1, 2, 2, 2] and labels(folders, "val") == [0, 1, 2]


def test_two_names_that_another_system_holds_for_one(folders: Path) -> None:
    """They are two classes here; a third spelling is neither."""
    save(folders / "train" / "Cat" / "0.png")
    assert labels(folders) == [0, 1, 1, 1, 1, 2, 2, 3, 3, 3] and labels(folders, "val") == [1, 2, 3]
    (folders / "val" / "cat").rename(folders / "val" / "CAT")
    with pytest.raises(DataError, match=r"train/Cat: as well as 'cat' it may be the 'CAT'.*; rename one of them"):
        labels(folders, "val")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_composed_and_decomposed(folders: Path, forms: tuple[str, str]) -> None:
    """macOS stores é as e and an accent."""
    of_train, of_val = (unicodedata.normalize(form, "été") for form in forms)
    assert of_train != of_val
    (folders / "train" / "dog").rename(folders / "train" / of_train)
    (folders / "val" / "dog").rename(folders / "val" / of_val)
    (folders / "labels.txt").write_text(f"cat tabby\nnewt newt\n{of_val} summer\n", encoding="utf8")
    data = open_data(f"folders:{folders}", "val", SIZE)
    assert sorted(data.classes) == ["newt", "summer", "tabby"]
    assert sorted(int(sample.label) for sample in data) == [0, 1, 2]


@pytest.mark.parametrize(
    ("encoding", "mark", "end"),
    [("utf8", "", "\r\n"), ("utf8", "\ufeff", "\n"), ("utf-16-le", "\ufeff", "\r\n"), ("utf-16-be", "\ufeff", "\n")],
)
def test_text_files_of_other_systems(folders: Path, encoding: str, mark: str, end: str) -> None:
    text = mark + end.join(["cat  tabby", "dog größter Hund", "newt", ""])
    (folders / "Labels.txt").write_bytes(text.encode(encoding))
    assert open_data(f"folders:{folders}", "train", SIZE).classes == ("tabby", "größter Hund", "newt")


@pytest.mark.parametrize("content", [b"cat \xff\xfe", b"c\0a\0t\0", "\ufeffcat".encode("utf-16-le")[:-1]])
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.txt: cannot be read as text .*write it in UTF-8 or remove it"):
        read_lines(tmp_path / "labels.txt")


def test_a_class_whose_name_is_no_text(folders: Path) -> None:
    """A zip file of Latin-1 names unpacks to bytes that no report can hold."""
    for split in ("train", "val"):
        os.rename(folders / split / "newt", os.fsencode(folders / split) + b"/n\xe9wt\n")  # noqa: PTH104
    classes = open_data(f"folders:{folders}", "val", SIZE).classes
    assert classes == ("cat", "dog", "n\\xe9wt\\n")
    "".join(classes).encode("utf8")


def test_printable_leaves_what_can_be_printed() -> None:
    for name in ("Größe", "e\u0301te\u0301", "a b\u00a0c", "猫", "a\\b"):
        assert printable(name) == name


def test_camvid_of_another_system(camvid: Path) -> None:
    (camvid / "train").rename(camvid / "Train")
    (camvid / "trainannot").rename(camvid / "TrainAnnot")
    (camvid / "TrainAnnot" / "03.png").rename(camvid / "TrainAnnot" / "03.PNG")
    (camvid / "Train" / "Thumbs.db").write_bytes(b"")
    data = open_data(f"camvid:{camvid}", "train", SIZE)
    assert len(data) == 5
    for sample in data:
        assert len(np.unique(sample.label)) == 12


def test_labels_without_an_image_are_counted_too(camvid: Path, caplog: pytest.LogCaptureFixture) -> None:
    (camvid / "train" / "01.png").rename(camvid / "train" / "01.heic")
    with caplog.at_level(logging.WARNING):
        assert len(open_data(f"camvid:{camvid}", "train", SIZE)) == 4
    assert "left out: 1 .heic, 1 .png" in caplog.text


def test_cityscapes_of_another_system(cityscapes: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its images as JPEG, too, as many store them."""
    images = cityscapes / "leftImg8bit" / "train" / "aachen"
    with Image.open(images / "aachen_0_leftImg8bit.png") as image:
        image.save(images / "aachen_0_leftImg8bit.jpg")
    (images / "aachen_0_leftImg8bit.png").unlink()
    save(images / "aachen_0_leftImg8bit_foggy.png")
    (cityscapes / "leftImg8bit").rename(cityscapes / "leftimg8bit")
    (cityscapes / "gtFine" / "train" / "aachen").rename(cityscapes / "gtFine" / "train" / "Aachen")
    labels = cityscapes / "gtFine" / "train" / "Aachen"
    (labels / "aachen_0_gtFine_labelIds.png").rename(labels / "AACHEN_0_gtFine_labelIDs.PNG")
    with caplog.at_level(logging.WARNING):
        aachen, _ = open_data(f"cityscapes:{cityscapes}", "train", (24, 70))
        assert set(np.unique(aachen.label)) == {*range(19), 255}
    assert "left out: 1 .png" in caplog.text


def test_an_archive_packed_on_windows_is_named(tmp_path: Path) -> None:
    save(tmp_path / "train\\cat\\0.png")
    with pytest.raises(DataError, match=r"train: no such folder; .*'train\\cat\\0.png': the archive was packed on Win"):
        open_data(f"folders:{tmp_path}", "train", SIZE)


def test_a_folder_too_high_or_too_low_is_corrected(folders: Path, camvid: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    shutil.move(folders, tmp_path.parent / "inner")
    outer.mkdir(parents=True)
    shutil.move(tmp_path.parent / "inner", outer / "pets")
    for kind in ("folders", "camvid"):
        with pytest.raises(DataError, match=rf"train: no such folder; .*\({outer}/pets is such a folder: give that\)"):
            open_data(f"{kind}:{outer}", "train", SIZE)
        with pytest.raises(DataError, match=r"pets is such a folder: give that\)"):
            open_data(f"{kind}:{outer}/pets/train", "train", SIZE)
    with pytest.raises(DataError, match=r"elsewhere is not there: fix the path"):
        open_data(f"folders:{outer}/elsewhere", "train", SIZE)
    (outer / "pets.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"pets\.zip is a file: unpack it"):
        open_data(f"folders:{outer}/pets.zip", "train", SIZE)
