"""Parts of the recipe left out: only what it has, each a retraining of its own, kept when the command is killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.run.records import FinalRecord
from deploy.studies.ablation import NOTHING, WITHOUT, AblationRecord
from tests.deploy.tiny_experiment import arguments, finished_run, write_experiment

RECIPE = "[retrain]\nquantization_aware_steps = 2\ndistillation = 0.5\naverage = 0.9\n"


def test_every_part_of_the_recipe_is_left_out_once(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = finished_run(tmp_path_factory).copy(tmp_path / "runs")
    config = write_experiment(tmp_path, {"[retrain]\n": RECIPE})
    # the run trained on whole images: other data are those with crops here
    monkeypatch.setitem(WITHOUT, "crops", lambda e: replace(e, data=replace(e.data, crop=(32, 32))))
    command = ["study", "ablation", *arguments(config, tmp_path / "runs")]
    assert main([*command, "--models", "fast"]) == 0, capsys.readouterr().err
    record = AblationRecord.read(folder / AblationRecord.FILE)
    parts = ["the supernets' weights", "soft targets", "averaged weights", "quantization-aware steps", "crops"]
    assert [row.without for row in record.rows] == [NOTHING, *parts], "the recipe has no boundaries' loss"
    whole, *others = record.rows
    assert whole.change.value == whole.change.low == whole.change.high == 0
    for row in others:
        assert row.change.value == pytest.approx(row.score - whole.score)
    assert len({row.confusions for row in record.rows}) == len(record.rows)
    made = sorted(path.name for path in (folder / "ablation").glob("*.json"))
    assert len(made) == len(record.rows)
    before = (folder / AblationRecord.FILE).read_bytes()
    for path in (folder / "ablation").glob("*.pt"):
        path.unlink()  # what has a record is not trained again
    (folder / AblationRecord.FILE).unlink()
    assert main([*command, "--models", "fast"]) == 0
    assert (folder / AblationRecord.FILE).read_bytes() == before
    assert "soft targets" in capsys.readouterr().out
    assert FinalRecord.read(folder / FinalRecord.FILE).models, "the run itself stays as it is"
    assert main([*command, "--models", "teacher_plus,fast", "--without", "soft targets,the supernets' weights"]) == 0
    both = AblationRecord.read(folder / AblationRecord.FILE).rows
    assert [(row.model, row.without) for row in both[:2]] == [
        ("teacher_plus", NOTHING),
        ("teacher_plus", "soft targets"),  # the teacher starts as the teacher
    ]
    assert both[2:] == record.rows, "what was made before stays"
    for wrong, words in (
        (["--models", "slow"], "no such model"),
        (["--models", "fast", "--without", "sleep"], "no part of a recipe; there are the supernets' weights, soft"),
    ):
        assert main([*command, *wrong]) == 2
        assert words in capsys.readouterr().err
    assert main(["study", "ablation", *arguments(config, tmp_path / "none"), "--models", "fast"]) == 2
    assert "final.json: no such file" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_the_run_s_own_model_has_the_whole_recipe(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    command = ["study", "ablation", *arguments(write_experiment(tmp_path), tmp_path / "runs")]
    assert main([*command, "--models", "teacher_plus,fast", "--without", "quantization-aware steps"]) == 0
    rows = AblationRecord.read(folder / AblationRecord.FILE).rows
    assert {row.without for row in rows} <= {NOTHING, "quantization-aware steps"}
    final = FinalRecord.read(folder / FinalRecord.FILE)
    scores = {model.name: model.score_int8 for model in (final.teacher_plus, *final.models)}
    whole = {row.model: row.score for row in rows if row.without == NOTHING}
    assert whole == pytest.approx({name: scores[name] for name in ("teacher_plus", "fast")})
    trained = list((folder / "ablation").glob("*.pt"))
    assert len(trained) == sum(row.without != NOTHING for row in rows), "it is not retrained"
