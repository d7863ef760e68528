"""A loop on two boards of one fleet: they share the measuring, and the run ends with a verified bundle."""

from __future__ import annotations

import json

import pytest

from tests.deploy.tiny_experiment import Finished, finished_run, one_line, record, run, stored, write_experiment

FLEET = """
[left]
kind = "loopback"
server = "asyncssh"
fleet = "pair"

[right]
kind = "loopback"
server = "asyncssh"
fleet = "pair"

[alone]
kind = "loopback"
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


def loop(tmp_path, boards: str):
    """Of so many runs that no board has done its share, and the other's, before the other is there."""
    runs = "[profile]\nwarmup_runs = 1\nruns = "
    config = write_experiment(tmp_path, {f"{runs}3": f"{runs}1000"})
    (tmp_path / "boards.toml").write_text(FLEET)
    where = ["--runs-dir", str(tmp_path / "runs"), "--boards", str(tmp_path / "boards.toml"), "--board", boards]
    return run("loop", "--config", str(config), *where)


def test_two_boards_measure_one_run(finished, tmp_path):
    folder = finished.copy(tmp_path / "runs")
    (folder / "measurements.sqlite").unlink()
    done = loop(tmp_path, "left,right")
    assert done.returncode == 0, done.stderr
    conditions = [json.loads(row)["conditions"] for _, row in stored(folder)]
    assert {c["board"] for c in conditions} == {"pair"} and {c["unit"] for c in conditions} == {"left", "right"}
    summary = record(folder / "summary.json")
    assert summary["bundle"]["verified"] and summary["conditions"]["board"] == "pair"
    assert loop(tmp_path, "left,right").returncode == 0, "and a second time there is nothing to do"
    assert len(stored(folder)) == len(conditions)


def test_boards_that_are_not_alike_are_refused(finished, tmp_path):
    finished.copy(tmp_path / "runs")
    done = loop(tmp_path, "left,alone")
    assert done.returncode == 2
    one_line(done.stderr, "not of one fleet", "boards.toml")
