"""`--set KEY=VALUE`: what it makes of a configuration, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.cli import main
from deploy.cli.runs import RunOptions, load
from deploy.run.assignments import assigned
from nas.errors import ConfigError
from tests.deploy.tiny_experiment import arguments, write_experiment

SETTINGS = {"seed": 0, "data": {"spec": "scenes", "crop": [3, 4]}, "retrain": {"steps": 5}}


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("retrain.steps=200", ("retrain", "steps"), 200),
        ("retrain.average=0.5", ("retrain", "average"), 0.5),
        ("search.estimate=weighted", ("search", "estimate"), "weighted"),
        ("data.spec=camvid:/data/camvid", ("data", "spec"), "camvid:/data/camvid"),
        ("data.crop=[144, 192]", ("data", "crop"), [144, 192]),
        ("predictor.objective=true", ("predictor", "objective"), True),
        ('data.spec="a b"', ("data", "spec"), "a b"),
        ("data.crop=", ("data", "crop"), None),
        ("data.held_out=", ("data", "held_out"), None),
    ],
)
def test_a_setting_is_changed_and_no_other(assignment: str, key: tuple[str, ...], value: Any) -> None:
    found = assigned(SETTINGS, [assignment])
    for name in key[:-1]:
        found = found[name]
    assert found.get(key[-1]) == value
    assert SETTINGS["data"] == {"spec": "scenes", "crop": [3, 4]}, "what was read stays as it is"
    assert assigned(SETTINGS, []) == SETTINGS


@pytest.mark.parametrize("text", ["seed", "=5", "a b=5", "retrain.=5", "seed.x=5", "seed=[1,", "seed=1 2", "x='"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set "):
        assigned(SETTINGS, [text])


def test_the_last_one_counts_and_names_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_experiment(tmp_path)
    options = RunOptions(config=config, settings=("retrain.steps=7", "retrain.steps=8", "retrain.start=scratch"))
    experiment, _ = load(options)
    assert (experiment.retrain.steps, experiment.retrain.start) == (8, "scratch")
    command = ["loop", *arguments(config, tmp_path / "runs"), "--set", "retrain.step=200"]
    assert main(command) == 2
    assert "unknown key 'retrain.step'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
