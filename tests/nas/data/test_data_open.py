"""`open_data`: what it takes, what it refuses, and the error tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nas.data import DATASETS, Sample, open_data
from nas.errors import ConfigError, DataError, NasError, QuantizationError


def test_every_data_set_opens_under_its_name(camvid: Path, cityscapes: Path, folders: Path) -> None:
    stored = {"camvid": camvid, "cityscapes": cityscapes, "folders": folders}
    specs = {"scenes": "scenes", "shapes": "shapes", **{name: f"{name}:{folder}" for name, folder in stored.items()}}
    assert specs.keys() == DATASETS.keys()
    for name, spec in specs.items():
        data = open_data(spec, "train", (36, 48))
        assert (data.name, data.size) == (name, (36, 48))
        assert data[0].image.shape == (36, 48, 3)
        assert data[0].label.shape == ((36, 48) if data.task == "segmentation" else ())
        assert (data.task == "segmentation") == (name in ("scenes", "camvid", "cityscapes"))
        assert len(data.classes) == len(set(data.classes))


@pytest.mark.parametrize(
    ("spec", "split", "options", "says"),
    [
        ("scens", "train", {}, "did you mean 'scenes'?"),
        ("ade20k:/data", "train", {}, "choose from scenes, camvid, cityscapes, shapes, folders"),
        ("scenes", "vall", {}, "did you mean 'val'?"),
        ("scenes:/data", "train", {}, "write 'scenes'"),
        ("shapes:/data", "train", {}, "write 'shapes'"),
        ("shape", "train", {}, "did you mean 'shapes'?"),
        ("folders", "train", {}, "write 'folders:FOLDER'"),
        ("camvid", "train", {}, "write 'camvid:FOLDER'"),
        ("cityscapes:", "train", {}, "write 'cityscapes:FOLDER'"),
        ("scenes", "train", {"size": (0, 64)}, "positive height"),
        ("scenes", "train", {"size": (16, 64)}, "at least 32x32"),
        ("shapes", "train", {"size": (16, 64)}, "at least 24x24"),
        ("shapes", "val", {"seed": -1}, "seed of 0 or more"),
        ("scenes", "train", {"count": 0}, "at least 1"),
        ("scenes", "train", {"seed": -1}, "seed of 0 or more"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(spec: str, split: str, options: dict, says: str) -> None:
    size = options.pop("size", (48, 64))
    with pytest.raises(ConfigError) as caught:
        open_data(spec, split, size, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sample_refuses_arrays_that_do_not_fit() -> None:
    image, label = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    Sample(image, label)
    with pytest.raises(DataError, match="do not match"):
        Sample(image, label[:3])
    with pytest.raises(DataError, match="convert"):
        Sample(image.astype(np.float32), label)
    Sample(image, np.array(3, np.int64))
    with pytest.raises(DataError, match="a label of the full image to int64"):
        Sample(image, np.array(3, np.uint8))
    with pytest.raises(DataError, match="do not match"):
        Sample(image[0], np.array(3, np.int64))


def test_exit_codes_say_who_acts() -> None:
    assert NasError.exit_code == ConfigError.exit_code == DataError.exit_code == 2
    assert QuantizationError.exit_code == 4


def test_opening_data_needs_no_torch() -> None:
    code = "import nas.data, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_home_that_nobody_has_is_named() -> None:
    with pytest.raises(ConfigError, match="~nobody-at-all/data: no such home folder is known here; give the full"):
        open_data("folders:~nobody-at-all/data", "train", (32, 32))
