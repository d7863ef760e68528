"""`hilnas loop --explain`: what would run and why; it neither locks nor changes a run, nor makes one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.run.folder import Run
from tests.deploy.tiny_experiment import STAGES, Finished, arguments, one_line, write_experiment


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_is_done(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path)
    with Run(folder):  # as another process that works on it
        before = files(folder)
        assert main(["loop", "--explain", *arguments(finished.config, tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{stage}: done" for stage in STAGES]
    assert files(folder) == before


def test_a_changed_setting_is_named(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished.copy(tmp_path / "runs")
    config = write_experiment(tmp_path, {"[retrain]\nsteps = 30": "[retrain]\nsteps = 12"})
    command = ["loop", "--explain", *arguments(config, tmp_path / "runs")]
    assert main(command) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["search"] == "done" and lines["ship"] == "runs: retrain runs again"
    assert "steps: 30 -> 12" in lines["retrain"]
    assert main([*command, "--json", "--until", "retrain"]) == 0
    *kept, retrain = json.loads(capsys.readouterr().out)
    assert not any(one["runs"] for one in kept) and (retrain["stage"], retrain["runs"]) == ("retrain", True)
    assert [(change["old"], change["new"]) for change in retrain["changes"]] == [(30, 12)]


def test_a_run_that_is_not_there_stays_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["loop", "--explain", *arguments(write_experiment(tmp_path), tmp_path / "runs")]
    assert main([*command, "--until", "distil"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: runs: never run yet" for name in ("teacher", "distil")]
    assert main([*command, "--until", "schemes"]) == 2
    one_line(capsys.readouterr().err, "--until schemes", "no such stage")
    assert not (tmp_path / "runs").exists()
