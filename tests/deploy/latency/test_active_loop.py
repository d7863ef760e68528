"""A budget of board time through the real command, on the loopback board."""

from __future__ import annotations

import pytest

from nas.table import Table
from tests.deploy.tiny_experiment import arguments, finished_run, one_line, record, run, stored


@pytest.fixture
def finished(tmp_path, tmp_path_factory):
    whole = finished_run(tmp_path_factory)
    return whole.config, whole.copy(tmp_path / "runs")


def test_a_budget_measures_what_counts_and_goes_on_from_the_store(finished):
    config, folder = finished
    command = ("lut", "latency", *arguments(config, folder.parent), "--budget", "2min")
    ended = run(*command)
    assert ended.returncode == 0, ended.stderr
    active = record(folder / "active.json")
    assert active["ended"] in ("the front is stable", "every block is measured")
    table = Table.load(folder / "tables" / "latency.parquet")
    assert {entry.source for entry in table.entries.values()} <= {"measured", "predicted"}
    assert sum(entry.n > 0 for entry in table.entries.values()) == 2 * active["blocks"]  # two widths run as one
    assert table.provenance["lineage"]["how"] == "predicted"
    before = stored(folder)
    (folder / "profile.json").unlink()  # as if it had been killed before it said that it ended
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert stored(folder) == before
    assert record(folder / "active.json") == active


def test_models_that_were_chosen_are_fitted_to_and_agreement_goes_on(finished):
    config, folder = finished
    ended = run("agree", *arguments(config, folder.parent), "--budget", "2min", "--tau", "-1")
    assert ended.returncode == 0, ended.stderr
    judged, chosen = record(folder / "agreement.json"), record(folder / "active.json")["networks"]
    samples = {s["subnet"] for s in judged["samples"]}
    assert judged["correction"]["n_models"] == len(samples) + len({m["subnet"] for m in chosen} - samples)
    assert judged["as_measured"] is None


@pytest.mark.parametrize("budget", ["soon", "0s", "10"])
def test_a_budget_that_is_no_time_is_said(finished, budget):
    config, folder = finished
    ended = run("lut", "latency", *arguments(config, folder.parent), "--budget", budget)
    assert ended.returncode == 2
    one_line(ended.stderr, "is no time", "45m")


def test_a_damaged_list_of_chosen_models_is_said(finished):
    config, folder = finished
    assert run("lut", "latency", *arguments(config, folder.parent), "--budget", "2min").returncode == 0
    (folder / "active.json").write_text('{"key": 1}')
    ended = run("agree", *arguments(config, folder.parent), "--budget", "2min", "--tau", "-1")
    assert ended.returncode == 2
    one_line(ended.stderr, "active.json", "no schema version", "delete it")
