"""One command compares methods: same budget, same retraining, nothing done twice, nothing lost to a kill."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.cli import main
from deploy.compare.compare_search import compare_search
from deploy.compare.methods import METHODS, sharing_schedule
from deploy.compare.setup import SearchComparison, open_comparison
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.quantizing import quantize_network
from nas.errors import ConfigError
from nas.space import Architecture
from nas.tasks.task import score_integer, training_loss
from nas.training import train as train_module
from nas.training.train import train
from tests.deploy.tiny_experiment import Finished, arguments, finished_run, record, run, start, write_experiment

pytestmark = pytest.mark.usefixtures("one_thread")
REPOSITORY = Path(__file__).parents[3]
COMPARE = """
[compare]
evaluations = 6
population = 3
parents = 2
held_out = 4
supernet = { steps = 9, optimizer = "adamw", learning_rate = 1e-3, batch_size = 4 }
retrain = { steps = 5, optimizer = "adamw", learning_rate = 1e-3, batch_size = 4, start = "scratch" }
retrainings = 2
"""
STEPS, RETRAIN_STEPS, RETRAININGS = 9, 5, 2


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


def config_in(folder: Path, budget: str = "") -> Path:
    changes = {'{ name = "fast", latency = 50.0 }': budget} if budget else {}
    config = write_experiment(folder, changes)
    config.write_text(config.read_text() + COMPARE)
    return config


@contextmanager
def opened(config: Path, runs: Path) -> Iterator[SearchComparison]:
    experiment, space = load_experiment(config, Overrides())
    folder = runs / "tiny"
    with Run(folder) as of_experiment, Run(folder / "compare") as own:
        context = Context(experiment, space, of_experiment, REPOSITORY / "boards.toml")
        yield open_comparison(context, own, experiment.budgets[0])


def without_costs(result: Any) -> Any:
    return {**result, "methods": [{k: v for k, v in row.items() if k != "spent"} for row in result["methods"]]}


BUDGET = '{ name = "fast", size = 0.75, latency = 50.0 }'


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory) -> tuple[Path, Path]:
    """(configuration, runs folder) of a comparison that nothing interrupted."""
    base = tmp_path_factory.mktemp("compared")
    finished.copy(base / "runs")
    config = config_in(base, BUDGET)
    ended = run("compare-search", *arguments(config, base / "runs"), "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == record(base / "runs" / "tiny" / "compare" / "fast.json")
    return config, base / "runs"


def result_of(runs: Path) -> Any:
    return record(runs / "tiny" / "compare" / "fast.json")


def test_every_method_ends_within_the_budget_with_its_costs(compared, finished):
    result = result_of(compared[1])
    rows = {row["method"]: row for row in result["methods"]}
    assert list(rows) == list(METHODS) and result["metric"] == "mIoU"
    for name, row in rows.items():
        assert row["size_bits"] <= 0.75 * result["teacher"]["size_bits"], name
        assert len(row["int8"]) == len(row["fp32"]) == RETRAININGS and all(0 <= v <= 100 for v in row["int8"])
        tables = name in ("blockwise", "dna")
        assert set(row["spent"]) == {"train", "search", "retrain"} | ({"teacher", "tables"} if tables else set())
        assert all(spent["wall_s"] >= 0 and spent["cpu_s"] >= 0 for spent in row["spent"].values())
        assert (row["evaluated"], row["fitness"] is None) == ((0, True) if tables else (6, False))
    assert rows["blockwise"]["nsr"] == min(row["nsr"] for row in rows.values())
    assert rows["dna"]["nsr"] == rows["blockwise"]["nsr"] and rows["dna"]["complete"]
    assert record(compared[1] / "tiny" / "state.json") == record(finished.folder / "state.json"), "the run is reused"


def test_what_is_compared_is_not_done_again(compared, tmp_path):
    config, runs = compared
    again = Path(shutil.copytree(runs, tmp_path / "runs"))
    ended = run("compare-search", *arguments(config, again), "--methods", "spos,blockwise")
    assert ended.returncode == 0, ended.stderr
    assert "train" not in ended.stderr and "retrain" not in ended.stderr and "spos: starts" not in ended.stderr
    rows, before = ({row["method"]: row for row in result_of(folder)["methods"]} for folder in (again, runs))
    assert list(rows) == ["spos", "blockwise"]
    assert rows["spos"] == before["spos"], "costs too: they are what was spent, not what repeating took"
    for words in ("mIoU INT8", "blockwise", "search s", "75% of the teacher's"):
        assert words in ended.stdout


@pytest.mark.parametrize("stage", ["spos", "random, search"])
def test_a_killed_comparison_ends_as_one_that_was_not(compared, finished, tmp_path, stage):
    config, runs = compared
    folder = finished.copy(tmp_path / "runs")
    started = start(["compare-search", *arguments(config, tmp_path / "runs")], eager=True, held=(stage, 1))
    started.wait_for(f"{stage}: starts")
    started.end(signal.SIGKILL)
    assert not (folder / "compare" / "fast.json").exists()
    ended = run("compare-search", *arguments(config, tmp_path / "runs"))
    assert ended.returncode == 0, ended.stderr
    assert without_costs(result_of(tmp_path / "runs")) == without_costs(result_of(runs))


@pytest.mark.parametrize("events", [3, 7, 14, 17])
def test_a_comparison_stopped_after_any_event_ends_as_one_that_was_not(
    compared, finished, tmp_path, monkeypatch, events
):
    monkeypatch.setattr(train_module, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    config, runs = compared
    folder = finished.copy(tmp_path / "runs")
    seen = []
    with opened(config, tmp_path / "runs") as comparison:
        comparing = compare_search(comparison, ["spos"])
        for _ in range(events):
            seen.append(next(comparing).text)
        comparing.close()
    for journal in (folder / "compare").glob("*.jsonl"):  # and the last line was cut short
        journal.write_bytes(journal.read_bytes()[:-5])
    with opened(config, tmp_path / "runs") as comparison:
        list(compare_search(comparison, ["spos"]))
    (row,) = without_costs(result_of(tmp_path / "runs"))["methods"]
    assert row == next(r for r in without_costs(result_of(runs))["methods"] if r["method"] == "spos"), seen


def test_winners_are_retrained_alike(compared):
    """Each row's accuracy is that of a plain training of its architecture: same seeds, steps, data, start."""
    result = result_of(compared[1])
    with opened(*compared) as comparison:
        context = comparison.context
        settings = context.experiment.compare.retrain
        for row in {row["subnet"]: row for row in result["methods"]}.values():
            architecture = Architecture.parse(row["subnet"])
            for number in range(RETRAININGS):
                torch.manual_seed(number)
                model = context.student(architecture)
                loss = training_loss(model, context.train_data, 4, number)
                checkpoint = compared[1] / "plain" / f"{architecture}-{number}.pt"
                assert len(list(train(model, loss, settings.schedule, checkpoint, "plain"))) == RETRAIN_STEPS
                plain = score_integer(quantize_network(context, model, architecture), context.val_data)
                assert row["int8"][number] == plain
    by_architecture = {}
    for row in result["methods"]:
        assert by_architecture.setdefault(row["subnet"], row["int8"]) == row["int8"]
    assert len(by_architecture) > 1


def test_methods_train_as_many_paths(compared):
    with opened(*compared) as comparison:
        assert sharing_schedule(comparison, "spos").steps == STEPS
        assert sharing_schedule(comparison, "fairnas").steps == -(-STEPS // 2)  # a step trains both choices


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((["--methods", "spos,darts"], ""), ("darts", "blockwise", "fairnas")),
        ((["--budget", "tiny"], ""), ("tiny", "fast")),
        (([], '{ name = "fast", size = 0.01 }'), ("fast", "size", "smallest")),
    ],
)
def test_what_cannot_be_compared_is_one_line(finished, tmp_path, capsys, asked, words):
    options, budget = asked
    finished.copy(tmp_path / "runs")
    command = ["compare-search", *arguments(config_in(tmp_path, budget), tmp_path / "runs"), *options]
    assert main(command) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hilnas: ") and not [word for word in words if word not in line], line
    assert not list((tmp_path / "runs" / "tiny").glob("compare/*.pt"))


@pytest.mark.parametrize(
    ("change", "words"),
    [("held_out = 4", "held_out = 0"), ("evaluations = 6", "evaluations = -1"), ("parents = 2", "parent = 2")],
)
def test_settings_that_cannot_be_used_are_one_line(tmp_path, change, words):
    config = config_in(tmp_path)
    config.write_text(config.read_text().replace(change, words))
    with pytest.raises(ConfigError, match="compare"):
        load_experiment(config, Overrides())
