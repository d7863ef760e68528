"""Final models with and without quantization-aware steps: the run's own, and those that no run makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli import main
from deploy.compare.records import ComparisonRecord, RetrainedRecord
from deploy.run.records import FinalRecord
from deploy.studies.finish import FinishRecord
from deploy.studies.finished_controls import FinishedControls
from tests.deploy.tiny_experiment import arguments, finished_run


def test_every_model_both_ways(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    config = tmp_path / "tiny.toml"
    config.write_text(finished.config.read_text() + "quantization_aware_steps = 2\n")
    (tmp_path / "space.toml").write_text((finished.config.parent / "space.toml").read_text())
    command = ["study", "finish", *arguments(config, tmp_path / "runs")]
    assert main([*command, "--models", "teacher_plus,fast"]) == 0, capsys.readouterr().err
    record = FinishRecord.read(folder / FinishRecord.FILE)
    final = FinalRecord.read(folder / FinalRecord.FILE)
    assert record.steps == 2 and [one.name for one in record.models] == ["teacher_plus", "fast"]
    in_the_run = {model.name: model.score_int8 for model in (*final.models, final.teacher_plus)}
    for one in record.models:
        assert one.plain_score == pytest.approx(in_the_run[one.name]), "the run had no such steps"
        assert one.plain != one.finished and len(one.finished) == 4
    assert sorted(path.name for path in (folder / "students").glob("*.finish.pt")) == [
        "fast-also.finish.pt",
        "teacher_plus-also.finish.pt",
    ]
    before = (folder / FinishRecord.FILE).read_bytes()
    assert main([*command, "--models", "teacher_plus,fast"]) == 0
    assert (folder / FinishRecord.FILE).read_bytes() == before and "with 2 steps" in capsys.readouterr().out
    assert main([*command, "--models", "slow"]) == 2
    assert "no such model; there are teacher_plus, fast" in capsys.readouterr().err
    assert main(["study", "finish", *arguments(finished.config, tmp_path / "runs")]) == 2
    assert "has no quantization-aware steps" in capsys.readouterr().err
    assert main(["study", "finish", *arguments(config, tmp_path / "none")]) == 2
    assert "final.json: no such file" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_what_was_compared_goes_on_with_the_same_steps(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    compare = ["compare-search", *arguments(finished.config, tmp_path / "runs")]
    assert main([*compare, "--methods", "random_blocks,fewer_layers"]) == 0, capsys.readouterr().err
    config = tmp_path / "tiny.toml"
    config.write_text(finished.config.read_text() + "quantization_aware_steps = 2\n")
    (tmp_path / "space.toml").write_text((finished.config.parent / "space.toml").read_text())
    command = ["study", "finish", *arguments(config, tmp_path / "runs"), "--compared"]
    assert main([*command, "fast"]) == 0, capsys.readouterr().err
    made = FinishedControls.read(folder / FinishedControls.FILE)
    methods = ComparisonRecord.read(folder / "compare" / "fast.json").methods
    assert [(one.method, one.retrained, one.plain_score) for one in made.winners] == [
        (method.method, method.retrained[0], method.int8[0]) for method in methods
    ]
    for one in made.winners:
        plain = RetrainedRecord.read(folder / "compare" / "retrained" / f"{one.retrained}.json")
        assert one.finished != plain.confusions and len(one.finished) == len(plain.confusions)
    before = (folder / FinishedControls.FILE).read_bytes()
    assert main([*command, "fast"]) == 0
    assert (folder / FinishedControls.FILE).read_bytes() == before
    assert "fast: fewer_layers" in capsys.readouterr().out
    compare = ["compare-search", *arguments(config, tmp_path / "runs"), "--methods", "fewer_layers"]
    assert main(compare) == 0, "its winner has the steps"
    (own,) = ComparisonRecord.read(folder / "compare" / "fast.json").methods
    finish = folder / "compare" / "retrained" / f"{own.retrained[0]}.finish.pt"
    weights = finish.read_bytes()
    assert main([*command, "fast"]) == 0
    (again,) = FinishedControls.read(folder / FinishedControls.FILE).winners
    assert again.finished_score == own.int8[0] and finish.read_bytes() == weights
    # the same weights before the steps; a network that was just trained folds to other last bits than one read back
    assert again.plain_score == pytest.approx(made.winners[-1].plain_score, abs=0.01)
    assert main([*command, "small"]) == 2
    assert "run hilnas compare-search --budget small first" in capsys.readouterr().err
