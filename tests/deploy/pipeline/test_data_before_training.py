"""Before the first training step the files that are trained on are read, once; of validation only their hashes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deploy.pipeline.data_check import check_data
from deploy.pipeline.loop import loop
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.records import DataRecord
from nas.data import images
from nas.errors import DataError
from tests.deploy.camvid_files import write_camvid
from tests.deploy.tiny_experiment import REPOSITORY, write_experiment

TRAIN, VAL = 16, 4


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return write_camvid(tmp_path / "camvid", (64, 96), TRAIN, VAL)


@pytest.fixture
def context(tmp_path: Path, camvid: Path) -> Iterator[Context]:
    config = write_experiment(
        tmp_path,
        {
            'spec = "scenes"': f'spec = "camvid:{camvid}"',
            "head = { channels = 8, rates = [2] }\nschedule = { steps = 30": (
                "head = { channels = 8, rates = [2] }\nschedule = { steps = 2"
            ),
        },
    )
    with Run(tmp_path / "runs" / "tiny") as run:
        yield Context(*load_experiment(config, Overrides()), run, REPOSITORY / "boards.toml")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The image files that are opened as images, and their labels."""
    opened, found = images.Image.open, list[str]()

    def note(path: Path, *arguments: object, **options: object) -> Image.Image:
        found.append(str(path))
        return opened(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(images.Image, "open", note)
    return found


def test_the_training_split_is_read_before_the_first_step(context: Context, camvid: Path, decoded: list[str]) -> None:
    shown = list(loop(context, "teacher"))
    of_data = [p for p in shown if p.stage == "data"]
    total = TRAIN + VAL
    assert (of_data[0], of_data[-1]) == (Progress("data", 0, total, "starts"), Progress("data", total, total, "done"))
    assert [p.done for p in of_data] == [0, *range(1, total + 1), total]
    first_step = next(i for i, p in enumerate(shown) if p.stage == "teacher" and p.text.startswith("loss"))
    assert shown.index(of_data[-1]) < first_step
    files = {str(path) for folder in ("train", "trainannot") for path in (camvid / folder).iterdir()}
    assert set(decoded[: 2 * TRAIN]) == files
    assert not [path for path in decoded if Path(path).parent.name.startswith("val")]
    record = DataRecord.read(context.path / "data.json")
    assert (record.train, record.val, record.in_both) == (TRAIN, VAL, ())


def test_a_bad_file_ends_the_run_before_it_trains(context: Context, camvid: Path) -> None:
    (camvid / "train" / "07.png").write_bytes(b"")
    (camvid / "trainannot" / "11.png").write_bytes((camvid / "trainannot" / "11.png").read_bytes()[:80])
    with pytest.raises(DataError) as caught:
        for _ in loop(context, "teacher"):
            pass
    assert str(caught.value) == (
        f"{camvid}/train/07.png: an empty file; copy it anew (1 more of {TRAIN} training images cannot be used:"
        f" `hilnas data check camvid:{camvid}` names them)"
    )
    assert not (context.path / "teacher.pt").exists() and not (context.path / "data.json").exists()


def test_files_that_have_not_changed_are_read_once(context: Context, camvid: Path, decoded: list[str]) -> None:
    list(check_data(context))
    first = DataRecord.read(context.path / "data.json")
    decoded.clear()
    assert list(check_data(context)) == [] and decoded == []
    path = camvid / "train" / "03.png"
    os.utime(path, ns=(0, 1))
    list(check_data(context))
    assert len(decoded) >= 2 * TRAIN
    again = DataRecord.read(context.path / "data.json")
    assert (again.train_sha256, again.val_sha256) == (first.train_sha256, first.val_sha256)
    with Image.open(path) as image:
        image.resize((96, 64)).convert("L").convert("RGB").save(path)
    list(check_data(context))
    changed = DataRecord.read(context.path / "data.json")
    assert changed.train_sha256 != first.train_sha256 and changed.val_sha256 == first.val_sha256


def test_validation_images_that_are_trained_on_are_told(
    context: Context, camvid: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By their files' hashes, every time that the run starts to train."""
    (camvid / "val" / "02.png").write_bytes((camvid / "train" / "05.png").read_bytes())
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            list(check_data(context))
        assert caplog.messages == [
            f"1 of {VAL} validation images are in the training split too, as {camvid}/val/02.png: a score on what was"
            " trained on says nothing; remove them from one split"
        ]
    assert DataRecord.read(context.path / "data.json").in_both == (f"{camvid}/val/02.png",)


def test_generated_data_has_no_files_to_check(tmp_path: Path) -> None:
    with Run(tmp_path / "runs" / "tiny") as run:
        config = write_experiment(tmp_path)
        context = Context(*load_experiment(config, Overrides()), run, REPOSITORY / "boards.toml")
        assert list(check_data(context)) == []
    assert not (tmp_path / "runs" / "tiny" / "data.json").exists()
