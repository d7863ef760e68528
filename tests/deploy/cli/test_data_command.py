"""`hilnas data check`: what is printed, as text and JSON, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.cli import main
from tests.deploy.camvid_files import write_camvid
from tests.deploy.cli.failing import USAGE, Fails

FAILED = 1


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Three training and two validation images."""
    return write_camvid(tmp_path / "camvid", (12, 24), 3, 2)


def test_a_good_data_set(camvid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", f"camvid:{camvid}"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"camvid:{camvid}: segmentation, 11 classes\n")
    assert said.out.endswith("every file can be used\n")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.out.splitlines() if line.startswith("│")]
    assert ["train", "3", "12x24", "PNG RGB", "0-11", "8.33", "0", "0"] in rows
    assert ["sky", "9.09", "3", "9.09", "2"] in rows
    assert said.err.splitlines() == ["train: starts", "train: done", "val: starts", "val: done"]


def test_everything_that_is_wrong_or_odd_is_a_line(camvid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (camvid / "train" / "01.png").write_bytes(b"<html>")
    (camvid / "train" / "x.heic").write_bytes(b"")
    tag = Image.Exif()
    tag[0x0112] = 3
    with Image.open(camvid / "train" / "00.png") as image:
        image.save(camvid / "val" / "00.png")
        image.transpose(Image.Transpose.ROTATE_180).save(camvid / "val" / "01.png", exif=tag)
    assert main(["data", "check", f"camvid:{camvid}"]) == FAILED
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert f"train: left out, as no image: {camvid}/train/x.heic" in lines
    assert f"val: 1 image is turned upright as their EXIF orientation says: {camvid}/val/01.png" in lines
    assert f"val: 1 image is the same picture as another: {camvid}/val/01.png (= {camvid}/val/00.png)" in lines
    assert f"in val and in train: {camvid}/val/00.png = {camvid}/train/00.png" in lines
    page = f"{camvid}/train/01.png: an HTML page, not the image: its download failed; download it again"
    assert f"bad: {page}" in lines and "every file" not in said.out
    assert said.err.splitlines()[-1] == (
        f"hilnas: 1 of 5 samples cannot be used: {page}; 1 picture of val is in train too ({camvid}/val/00.png ="
        f" {camvid}/train/00.png): a score on what was trained on says nothing; remove it from one split"
    )


def reported(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> Any:
    assert main(["data", "check", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_json(camvid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (camvid / "val" / "00.png").write_bytes(b"")
    report = reported(capsys, FAILED, f"camvid:{camvid}", "--threads", "2")
    train, val = report["splits"]
    assert (report["task"], len(report["classes"]), report["same"]) == ("segmentation", 11, [])
    assert train["counts"][0] == {"name": "sky", "pixels": 3 * 24, "images": 3}
    assert (train["sizes"], train["values"], train["unlabelled"]) == ({"12x24": 3}, ["0-11"], 3 * 24)
    assert val["bad"] == [f"{camvid}/val/00.png: an empty file; copy it anew"]
    (train,) = reported(capsys, 0, f"camvid:{camvid}", "--split", "train")["splits"]
    assert train["images"] == 3
    assert reported(capsys, 0, "shapes", "--split", "val")["splits"][0]["stored_as"] == {"generated": 256}


def test_many_classes_and_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for i in range(70):
            folder = os.fsencode(tmp_path / split) + b"/n\xe9%03d" % i
            os.makedirs(folder)  # noqa: PTH103
            for j in range(1 + (split == "train" and i == 5)):
                pixels = np.random.default_rng([i, j, split == "val"]).integers(0, 256, (4, 4, 3), np.uint8)
                Image.fromarray(pixels).save(os.fsdecode(folder + b"/%d.png" % j))
    assert main(["data", "check", f"folders:{tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "the 60 rarest classes of 70 (--json has all):" in said
    assert "n\\xe9000" in said and "n\\xe9005" not in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["camvid:nowhere"], ("nowhere/train: no such folder", "nowhere is not there: fix the path")),
        (["camvid"], ("write 'camvid:FOLDER'",)),
        (["scens"], ("did you mean 'scenes'?",)),
        (["scenes", "--split", "vall"], ("did you mean 'val'?",)),
        (["scenes", "--threads", "0"], ("--threads 0: give at least 1",)),
    ],
)
def test_a_wrong_call(fails: Fails, words: list[str], says: tuple[str, ...]) -> None:
    fails(USAGE, ["data", "check", *words], *says)
