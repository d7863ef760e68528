"""Squares of a segmentation data set as a classification one: each shows its class, none overlap, splits stay apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.cli import main
from deploy.studies.patches import Patches, Square, squares, write_patches
from hil.errors import UsageError
from nas.data import open_data
from nas.data.sample import IGNORE


def write_halves(root: Path, train: int, val: int) -> Path:
    """CamVid's layout: images of 32x64 whose left half is class 0 and red, whose right half is class 3 and blue."""
    label = np.zeros((32, 64), np.uint8)
    label[:, 32:] = 3
    image = np.zeros((32, 64, 3), np.uint8)
    image[..., 0], image[..., 2] = np.where(label == 0, 200, 0), np.where(label == 3, 200, 0)
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            for folder, array in ((split, image), (f"{split}annot", label)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / folder / f"{i:02}.png")
    return root


def test_squares_show_one_class() -> None:
    label = np.zeros((8, 12), np.uint8)
    label[:4, 4:8] = 2
    label[:4, 6:8] = 5  # half and half: none
    label[4:, 8:] = IGNORE
    found = list(squares(label, 7, Patches((8, 12), side=4, share=0.75)))
    assert found == [Square(0, 7, 0, 0), Square(0, 7, 0, 8), Square(0, 7, 4, 0), Square(0, 7, 4, 4)]


def test_they_are_read_as_folders_with_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_halves(tmp_path / "data", 4, 3), tmp_path / "patches"
    command = ["study", "patches", "--data", f"camvid:{data}", "--out", str(out), "--size", "32x64", "--side", "16"]
    assert main(command) == 2, "fewer than a tenth of the most"
    assert "0 classes have squares" in capsys.readouterr().err and not out.exists()
    list(write_patches(f"camvid:{data}", Patches((32, 64), 16, train=10, val=5), out))
    for split, count in (("train", 10), ("val", 5)):
        found = open_data(f"folders:{out}", split, (16, 16))
        assert found.classes == ("road", "sky") and len(found) == 2 * count
        for sample in (found[i] for i in range(len(found))):
            colour = sample.image.reshape(-1, 3).mean(axis=0)
            assert (colour[0] > 100) == (found.classes[int(sample.label)] == "sky")
    with pytest.raises(UsageError, match=r"patches: is there already"):
        list(write_patches(f"camvid:{data}", Patches((32, 64), 16), out))
    assert main([*command[:-1], "33"]) == 2
    assert "--side 33: give 1 to 32" in capsys.readouterr().err
    assert main(["study", "patches", "--data", "shapes", "--out", str(tmp_path / "x")]) == 2
    assert "name a segmentation data set" in capsys.readouterr().err
