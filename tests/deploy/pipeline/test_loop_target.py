"""A loop whose board has a target: models are held to its rules before anything is pushed, and the report says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.formats.tflite.read import read
from deploy.targets.inspection import inspect_model
from tests.deploy.networks import REPOSITORY
from tests.deploy.tiny_experiment import Finished, finished_run, one_line, record, run, stored, write_experiment

WRONG = """
description = "a target that convolves wrongly"
fast_place = "CPU"
[[rules]]
operators = ["CONV_2D"]
place = "CPU"
wrong = true
reason = "made up for a test"
evidence = "assumed"
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


def _boards(folder: Path, target: str, rules: str) -> str:
    (folder / "targets").mkdir()
    (folder / "targets" / f"{target}.toml").write_text(rules)
    (folder / "boards.toml").write_text(f'[loopback]\nkind = "loopback"\ntarget = "{target}"\n')
    return str(folder / "boards.toml")


def test_every_whole_model_says_its_widths_and_its_place(finished):
    summary = record(finished.folder / "summary.json")
    keys = record(finished.folder / "state.json")["stages"]["ship"]["key"]
    for model in (summary["teacher"], *summary["models"]):
        assert model["stored_bits"] == [8] and model["executed_bits"] == [8]
        assert model["placement"]["target"] == "cpu-xnnpack" and 0 <= model["placement"]["off_share"] <= 1
        found = inspect_model(read(finished.folder / "models" / f"{model['name']}.tflite"))
        assert found.hilnas is not None and found.hilnas["key"] == keys
        assert found.hilnas["subnet"] == model["subnet"] and list(found.requested_bits or ()) == model["requested_bits"]
        widths = {int(part.rpartition("_w")[2]) for part in model["subnet"].split("+") if "_w" in part}
        assert set(model["requested_bits"]) == {8, *widths}
    page = (finished.folder / "report.html").read_text()
    assert "bits: requested / stored / executed" in page and "off cpu-xnnpack&#x27;s CPU" in page


def test_what_would_be_wrong_is_never_pushed(finished, tmp_path):
    """The trained networks are kept; the teacher is compiled first, and its first convolution named."""
    folder = finished.copy(tmp_path / "runs")
    (folder / "measurements.sqlite").unlink()
    boards = _boards(tmp_path, "liar", WRONG)
    done = run("loop", "--config", str(finished.config), "--runs-dir", str(tmp_path / "runs"), "--boards", boards)
    assert done.returncode == 4
    one_line(
        done.stderr, "teacher on liar: operator 0, CONV_2D 'stem', gives wrong outputs", "more): made up for a test"
    )
    assert not stored(folder)


def test_a_size_that_the_target_cannot_enlarge_is_refused_before_training(tmp_path):
    config = write_experiment(tmp_path, {"size = [64, 96]": "size = [62, 96]"})
    rules = (REPOSITORY / "deploy/targets/rules" / "imx8mp-vx.toml").read_text()
    boards = _boards(tmp_path, "imx8mp-vx", rules)
    done = run("loop", "--config", str(config), "--runs-dir", str(tmp_path / "runs"), "--boards", boards)
    assert done.returncode == 4
    one_line(done.stderr, "'upsampled' resizes 16x24 to 62x96", "multiples of the network's output stride")
    assert not list((tmp_path / "runs").rglob("*.pt"))


def test_a_target_that_there_is_not(tmp_path):
    config = write_experiment(tmp_path)
    boards = _boards(tmp_path, "liar", WRONG)
    Path(boards).write_text('[loopback]\nkind = "loopback"\ntarget = "lair"\n')
    done = run("loop", "--config", str(config), "--runs-dir", str(tmp_path / "runs"), "--boards", boards)
    assert done.returncode == 2
    one_line(done.stderr, "target 'lair'", "did you mean 'liar'?")
