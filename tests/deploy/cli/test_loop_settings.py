"""Wrong configurations, spaces, data sets and encoders: one line that names them, nothing is started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.deploy.cli.failing import MODEL, USAGE, truncate
from tests.deploy.tiny_experiment import (
    arguments,
    write_experiment,
)


def test_a_missing_configuration(fails, tmp_path):
    fails(USAGE, ["loop", *arguments(tmp_path / "none.toml", tmp_path)], "none.toml", "no such file")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed = 0", "sede = 0", ("unknown key 'sede'", "did you mean 'seed'?")),
        ("val = 4", "vla = 4", ("unknown key 'data.vla'", "did you mean 'val'?")),
        ("batch_size = 4 }\n\n[distil]", "batchsize = 4 }\n\n[distil]", ("batchsize", "did you mean 'batch_size'?")),
        ("latency = 50.0", "latncy = 50.0", ("latncy", "did you mean 'latency'?")),
        ("size = [64, 96]", "size = [64]", ("data.size",)),
        ("size = [64, 96]", 'size = "large"', ("data.size",)),
        ("size = [64, 96]", "size = [64, 96]\ncrop = [0, 96]", ("data.crop 0x96", "positive height")),
        ("size = [64, 96]", "size = [64, 96]\nscales = [2.0, 1.0]", ("data.scales", "lowest <= highest")),
        ("size = [64, 96]", "size = [64, 96]\nheld_out = 0", ("data.held_out 0", "at least 1")),
        ("train = 16", 'train = "many"', ("data.train",)),
        ('name = "tiny"\n', "", ("name",)),
        (", latency = 50.0", "", ("budget 'fast'", "latency, size or both")),
        ("models = 4", "models = 2", ("agreement.models",)),
        ("[profile]", "[profile", ("TOML",)),
        ("learning_rates = [3e-3]", "learning_rates = [1e-3, 1e-3, 1e-3]", ("distil.learning_rates", "3", "2 blocks")),
        ("space.toml", "spaces.toml", ("spaces.toml", "no such file")),
    ],
)
def test_a_wrong_setting_is_named(fails, tmp_path, old, new, words):
    config = write_experiment(tmp_path, {old: new})
    fails(USAGE, ["loop", *arguments(config, tmp_path / "runs")], *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kernels", "kernel", ("unknown key 'kernel'", "did you mean 'kernels'?")),
        ("channels = 24", "chanels = 24", ("chanels", "did you mean 'channels'?")),
        ("bits = [4, 8]", "bits = [3]", ("bits",)),
        ("expansions = [2, 6]", "expansions = []", ("expansions",)),
    ],
)
def test_a_wrong_space_is_named(fails, tmp_path, old, new, words):
    config = write_experiment(tmp_path)
    space = tmp_path / "space.toml"
    assert old in space.read_text()
    space.write_text(space.read_text().replace(old, new, 1))
    fails(USAGE, ["loop", *arguments(config, tmp_path / "runs")], "space.toml" if "did" in words[-1] else "", *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("crop = [140, 96]", ("data.crop 140x96: larger than any scaled image", "64x96", "measures 128x192")),
        ("crop = [64, 96]\nscales = [0.5, 0.9]", ("data.crop 64x96: larger than any scaled image", "58x86")),
        ("held_out = 16", ("hold out 16 of 16 images", "between 1 and 15")),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_before_training(fails, tmp_path, line, words):
    config = write_experiment(tmp_path, {"size = [64, 96]": f"size = [64, 96]\n{line}"})
    fails(USAGE, ["loop", *arguments(config, tmp_path / "runs")], *words)
    assert not (tmp_path / "runs" / "tiny" / "teacher.pt").exists()


def test_an_unknown_stage(fails, tmp_path):
    command = ["loop", *arguments(write_experiment(tmp_path), tmp_path / "runs"), "--until", "profil"]
    fails(USAGE, command, "--until profil", "profile")


# Data sets


def camvid(root: Path, label_size: tuple[int, int]) -> Path:
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (96, 64), (90, 90, 90)).save(root / split / f"{i}.png")
            Image.fromarray(np.full(label_size, 3, np.uint8)).save(root / f"{split}annot" / f"{i}.png")
    return root


def with_data(tmp_path: Path, spec: str) -> list[str]:
    return ["teacher", *arguments(write_experiment(tmp_path), tmp_path / "runs"), "--data", spec]


def test_a_missing_data_folder(fails, tmp_path):
    fails(USAGE, with_data(tmp_path, "camvid:/nowhere"), "/nowhere/train", "no such folder")


def test_a_kind_of_data_that_there_is_not(fails, tmp_path):
    fails(USAGE, with_data(tmp_path, "camvd:/nowhere"), "camvd", "camvid")
    fails(USAGE, ["demo", "--data", "camvd:/nowhere"], "camvd", "camvid")


def test_a_label_of_another_size(fails, tmp_path):
    root = camvid(tmp_path / "camvid", (64, 95))
    fails(USAGE, with_data(tmp_path, f"camvid:{root}"), "trainannot", "95x64", "96x64")


def test_an_image_that_is_cut_short(fails, tmp_path):
    root = camvid(tmp_path / "camvid", (64, 96))
    for image in (root / "train").iterdir():
        truncate(image)
    fails(USAGE, with_data(tmp_path, f"camvid:{root}"), "train", "cannot be read as an image")


# The encoder to start from


def with_encoder(tmp_path: Path, encoder: Path) -> list[str]:
    command = arguments(write_experiment(tmp_path), tmp_path / "runs")
    return ["teacher", *command, "--encoder-from", str(encoder)]


def test_a_missing_encoder(fails, tmp_path):
    fails(USAGE, with_encoder(tmp_path, tmp_path / "none.tflite"), "none.tflite", "--encoder-from")


def test_an_encoder_of_other_shapes(fails, tmp_path, finished):
    command = with_encoder(tmp_path, finished.folder / "models" / "teacher.tflite")
    space = tmp_path / "space.toml"
    space.write_text(space.read_text().replace("channels = 24", "channels = 28"))
    fails(USAGE, command, "convolution", "file's is")


def test_an_encoder_with_too_few_convolutions(fails, tmp_path, model):
    fails(USAGE, with_encoder(tmp_path, model), "convolutions", "the file only")


def test_an_encoder_that_is_no_model(fails, tmp_path, model):
    text = tmp_path / "encoder.tflite"
    text.write_text("not a model at all")
    fails(MODEL, with_encoder(tmp_path, text), "encoder.tflite", "not a TFLite file")
    text.write_bytes(model.read_bytes()[:600])
    fails(MODEL, with_encoder(tmp_path, text), "encoder.tflite", "cut short or corrupt")
