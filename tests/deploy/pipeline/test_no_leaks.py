"""Nothing is chosen by what the report is made from: no stage before `ship` opens the validation split.

Of one on disk the files are looked for, and hashed to find those that are trained on; none is opened as an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deploy.lcpaq import proxy, steps
from deploy.lcpaq.run_network import RunNetwork
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.ship import ship as ship_policy
from deploy.pipeline.loop import loop
from deploy.run import context as contexts
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.records import DataRecord
from nas.data import Dataset, scenes
from nas.data.sample import Sample
from tests.deploy.camvid_files import write_camvid
from tests.deploy.tiny_experiment import REPOSITORY, write_experiment

# The search goes by labels of fine-tuned models: whatever may choose does.
CHOOSING = """
[predictor]
models = 5
schedule = { steps = 1, optimizer = "adamw", learning_rate = 1e-3, batch_size = 4 }
objective = true
"""
BRIEF = {
    "learning_rate = 1e-3, batch_size = 4 }\n\n[distil]": "batch_size = 4 }\n\n[distil]",
    "head = { channels = 8, rates = [2] }\nschedule = { steps = 30": (
        "head = { channels = 8, rates = [2] }\nschedule = { steps = 2"
    ),
    "[distil]\nschedule = { steps = 30": "[distil]\nschedule = { steps = 2",
    "[retrain]\nsteps = 30": "[retrain]\nsteps = 2",
    "size = [64, 96]": "size = [64, 96]\ncrop = [40, 64]",
}


class LeakError(BaseException):
    """The validation split was opened; nothing that handles exceptions handles this."""


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    config = write_experiment(tmp_path, BRIEF)
    config.write_text(config.read_text() + CHOOSING)
    with Run(tmp_path / "runs" / "tiny") as run:
        yield Context(*load_experiment(config, Overrides()), run, REPOSITORY / "boards.toml")


@pytest.fixture
def no_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the validation split, or drawing an image of it, is an error."""
    opened, drawn = contexts.open_data, scenes.draw_scene

    def open_data(spec: str, split: str, *arguments: object, **options: object) -> Dataset:
        if split == "val":
            raise LeakError("opened")
        return opened(spec, split, *arguments, **options)  # type: ignore[arg-type]

    def draw_scene(key: tuple[int, str, int], size: tuple[int, int]) -> Sample:
        if key[1] == "val":
            raise LeakError("drawn")
        return drawn(key, size)

    monkeypatch.setattr(contexts, "open_data", open_data)
    monkeypatch.setattr(scenes, "draw_scene", draw_scene)


def test_no_stage_before_ship_opens_the_validation_split(context: Context, no_validation: None) -> None:
    for _ in loop(context, "retrain"):
        pass
    with pytest.raises(LeakError, match="opened"):
        for _ in loop(context):
            pass

    subject, settings = (
        RunNetwork.of(context, "fast"),
        StepSettings(kind="nsr", images=4, k=2, trials=2, tuning_steps=1),
    )
    for step in (steps.sensitivity, steps.solve_policy, steps.refine_policy, proxy.search_settings):
        for _ in step(subject, settings):
            pass
    with pytest.raises(LeakError, match="opened"):
        for _ in ship_policy(subject, settings):
            pass


def test_held_out_images_are_in_no_training_calibration_or_table(context: Context) -> None:
    """By content: the two parts hold different samples of one split, and calibration's are of the first."""
    trained = {sample.image.tobytes() for sample in context.train_data}
    apart = {sample.image.tobytes() for sample in context.held_out_data}
    assert (len(trained), len(apart)) == (14, 2)
    assert not trained & apart
    for images in (context.calibration, context.evaluation):
        shown = {(image * 128 + 128).byte().permute(1, 2, 0).contiguous().numpy().tobytes() for image in images}
        assert len(shown) == 4 and shown <= trained
    assert not {image.numpy().tobytes() for image in context.calibration} & {
        image.numpy().tobytes() for image in context.evaluation
    }


def test_no_image_of_a_stored_validation_split_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files' hashes are read before the first step, and that is all."""
    root = write_camvid(tmp_path / "camvid", (64, 96), 16, 4)
    opened = Image.open

    def open_image(path: Path, *arguments: object, **options: object) -> Image.Image:
        if Path(path).parent.name in ("val", "valannot"):
            raise LeakError("opened")
        return opened(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", open_image)
    config = write_experiment(tmp_path, {**BRIEF, 'spec = "scenes"': f'spec = "camvid:{root}"'})
    with Run(tmp_path / "runs" / "tiny") as run:
        stored = Context(*load_experiment(config, Overrides()), run, REPOSITORY / "boards.toml")
        for _ in loop(stored, "tables"):
            pass
        assert DataRecord.read(stored.path / DataRecord.FILE).val == 4
        with pytest.raises(LeakError):
            stored.val_data[0]
