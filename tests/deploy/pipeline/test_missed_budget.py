"""A budget that no model keeps: the run ends with the others' models, a bundle, exit code 1 and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli import main
from deploy.run.records import FinalRecord, SearchRecord, Summary
from tests.deploy.tiny_experiment import arguments, finished_run, write_experiment

BUDGETS = {
    'budgets = [{ name = "fast", latency = 50.0 }]': (
        'budgets = [{ name = "none", latency = 0.001 }, { name = "fast", latency = 50.0 }]'
    )
}


def test_a_run_goes_on_without_a_budget_that_no_model_keeps(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path_factory).copy(tmp_path / "runs")
    config = write_experiment(tmp_path, BUDGETS)
    command = ["loop", *arguments(config, tmp_path / "runs")]
    reason = "budget 'none': a latency of"
    assert main(command) == 1
    said = capsys.readouterr()
    assert f"budget none: no model; {reason}" in said.out
    assert said.err.splitlines()[-1].startswith(f"hilnas: {reason}")
    (missed,) = SearchRecord.read(folder / SearchRecord.FILE).missed
    assert missed.name == "none" and missed.reason.startswith(reason)
    assert [model.name for model in FinalRecord.read(folder / FinalRecord.FILE).models] == ["teacher", "fast"]
    assert Summary.read(folder / Summary.FILE).missed == (missed,)
    assert "No model for none: budget &#x27;none&#x27;: a latency of" in (folder / "report.html").read_text()
    before = (folder / FinalRecord.FILE).stat().st_mtime_ns
    assert main(command) == 1
    assert "starts" not in capsys.readouterr().err, "what is done stays done"
    assert (folder / FinalRecord.FILE).stat().st_mtime_ns == before
    assert main(["search", *command[1:]]) == 1
    assert reason in capsys.readouterr().err
    assert main(["lcpaq", "solve", *command[1:], "--model", "none"]) == 2
    assert "none" in capsys.readouterr().err.splitlines()[-1]
