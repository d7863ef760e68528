"""One command compares methods: same budget, same retraining, nothing done twice, nothing lost to a kill."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.cli import main
from deploy.compare.compare_search import compare_search, recipe, retrained_alike
from deploy.compare.methods import METHODS, sharing_schedule
from deploy.compare.setup import SearchComparison, Winner, open_comparison, started
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.networks import assembled, finished_at
from deploy.run.quantizing import quantize_network
from deploy.ship.evaluation import simulated_confusions
from nas.errors import ConfigError
from nas.networks.start import start_network
from nas.space import Architecture
from nas.tasks.task import network, score_integer, training_loss
from nas.training import train as train_module
from nas.training.train import restore, train
from tests.deploy.tiny_experiment import Finished, arguments, finished_run, record, run, start, stored, write_experiment

pytestmark = pytest.mark.usefixtures("one_thread")
REPOSITORY = Path(__file__).parents[3]
COMPARE = """
[compare]
evaluations = 6
population = 3
parents = 2
random_blocks = 2
supernet = { steps = 9, optimizer = "adamw", learning_rate = 1e-3, batch_size = 4 }
retrain = { steps = 5, optimizer = "adamw", learning_rate = 1e-3, batch_size = 4, start = "scratch" }
retrainings = 2
"""
STEPS, RETRAIN_STEPS, RETRAININGS = 9, 5, 2
SEARCHED, RIVALS = ("blockwise", "dna"), ("spos", "fairnas", "random")


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
    """Without what was spent and measured."""
    measured = ("spent", "latency_share")
    return {**result, "methods": [{k: v for k, v in row.items() if k not in measured} for row in result["methods"]]}


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
    assert list(dict.fromkeys(row["method"] for row in result["methods"])) == list(METHODS)
    assert result["metric"] == "mIoU"
    rows = {row["method"]: row for row in result["methods"]}
    for row in result["methods"]:
        name, costs = row["method"], set(row["spent"])
        assert row["size_bits"] <= 0.75 * result["teacher"]["size_bits"] or name == "teacher_plus", name
        assert len(row["int8"]) == len(row["fp32"]) == RETRAININGS and all(0 <= v <= 100 for v in row["int8"])
        assert all(spent["wall_s"] >= 0 and spent["cpu_s"] >= 0 for spent in row["spent"].values())
        if name in RIVALS:
            assert costs == {"teacher", "train", "search", "retrain"}
            assert row["evaluated"] == 6 and row["fitness"] is not None
        elif name in ("blockwise", "dna", "random_blocks"):
            assert costs == {"teacher", "train", "tables", "retrain"} | ({"search"} if name in SEARCHED else set())
            assert row["evaluated"] == 0 and row["fitness"] is None
        else:
            assert costs == {"teacher", "retrain"}
    within = [row["nsr"] for row in result["methods"] if row["nsr"] is not None and row["method"] != "teacher_plus"]
    assert rows["blockwise"]["nsr"] == min(within) and len(within) == 7
    assert rows["dna"]["nsr"] == rows["blockwise"]["nsr"] and rows["dna"]["complete"]
    assert record(compared[1] / "tiny" / "state.json") == record(finished.folder / "state.json"), "the run is reused"


def test_what_is_compared_is_not_done_again(compared, tmp_path):
    config, runs = compared
    again = Path(shutil.copytree(runs, tmp_path / "runs"))
    ended = run("compare-search", *arguments(config, again), "--methods", "spos,blockwise,uniform")
    assert ended.returncode == 0, ended.stderr
    assert "train" not in ended.stderr and "retrain" not in ended.stderr and "spos: starts" not in ended.stderr
    rows, before = ({row["method"]: row for row in result_of(folder)["methods"]} for folder in (again, runs))
    assert list(rows) == ["spos", "blockwise", "uniform"]
    for name in ("spos", "uniform"):
        assert set(rows[name].pop("against")) == {"blockwise"} and set(before[name].pop("against")) > {"blockwise"}
        assert rows[name] == before[name], "costs too: they are what was spent, not what repeating took"
    assert stored(again / "tiny") == stored(runs / "tiny"), "nothing is measured again"
    for words in ("mIoU INT8", "blockwise", "search s", "75% of the teacher's", "points [", "against blockwise"):
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
    before = next(r for r in without_costs(result_of(runs))["methods"] if r["method"] == "spos")
    assert row == {**before, "against": {}}, seen


def test_winners_are_retrained_alike(compared):
    """Each row's accuracy is that of a plain training of its architecture: same seeds, steps, data, start.

    The recipe starts from new weights; the teacher trained on does not, or it would be another teacher.
    """
    result = result_of(compared[1])
    with opened(*compared) as comparison:
        context = comparison.context
        settings = context.experiment.compare.retrain
        for row in {row["subnet"]: row for row in result["methods"]}.values():
            architecture = Architecture.parse(row["subnet"])
            layers = [subnet.choices for subnet in architecture.subnets]
            for number in range(RETRAININGS):
                torch.manual_seed(number)
                model = network(context.train_data, context.space, layers, context.experiment.teacher.head)
                if row["method"] == "teacher_plus":
                    model.load_state_dict(context.teacher.state_dict())
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


def test_every_winner_is_compared_with_the_controls(compared):
    rows = result_of(compared[1])["methods"]
    means = {row["method"]: sum(row["int8"]) / RETRAININGS for row in rows}
    for row in rows:
        assert set(row["against"]) == {"teacher_plus", "blockwise"} - {row["method"]}
        for other, difference in row["against"].items():
            assert difference["value"] == pytest.approx(sum(row["int8"]) / RETRAININGS - means[other])
            assert difference["low"] <= difference["value"] <= difference["high"] and difference["n"] == 4


def test_the_controls_are_what_they_say(compared):
    result = result_of(compared[1])
    rows = {row["method"]: row for row in result["methods"]}
    control = rows["teacher_plus"]
    assert control["subnet"] == "b1_k3e6_w8+b2_k3e6-k3e6_w8"
    assert control["size_bits"] == result["teacher"]["size_bits"]
    assert rows["uniform"]["subnet"] == "b1_k3e3_w8+b2_k3e3-k3e3_w8"
    assert rows["fewer_layers"]["subnet"] == "b1_k3e6_w8+b2_k3e6_w8"
    for name in ("uniform", "fewer_layers"):
        assert rows[name]["nsr"] is rows[name]["predicted_us"] is None
        share = rows[name]["latency_share"]
        assert 0 < share["low"] <= share["value"] <= share["high"] and (share["n"], share["source"]) == (4, "measured")
    randoms = [row["subnet"] for row in result["methods"] if row["method"] == "random_blocks"]
    assert len(set(randoms)) == 2


def test_the_run_s_recipe_is_the_default_with_start_and_soft_targets(finished, tmp_path):
    config = config_in(tmp_path)
    text = config.read_text()
    config.write_text("\n".join(line for line in text.splitlines() if not line.startswith("retrain = ")))
    finished.copy(tmp_path / "runs")
    with opened(config, tmp_path / "runs") as comparison:
        context = comparison.context
        assert recipe(context) == context.experiment.retrain and recipe(context).start == "supernet"
        inside = comparison.affordable.sample(random.Random(0))
        alike(started(context, inside), assembled(context, inside))
        outside = Architecture.parse("b1_k3e3_w8+b2_k3e6_w8")
        expected = network(
            context.train_data, context.space, [s.choices for s in outside.subnets], context.experiment.teacher.head
        )
        start_network(expected, context.teacher)
        alike(started(context, outside), expected)
        teacher = Architecture.parse("b1_k3e6_w8+b2_k3e6-k3e6_w8")
        alike(started(context, teacher, "teacher"), context.teacher)


def alike(model: torch.nn.Module, other: torch.nn.Module) -> None:
    for (name, value), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(value, expected), name


def test_winners_are_trained_on_as_their_integers_where_the_recipe_does(compared, tmp_path):
    config, runs = compared
    again = tmp_path / "again.toml"
    again.write_text(
        config.read_text().replace('start = "scratch" }', 'start = "scratch", quantization_aware_steps = 3 }')
    )
    (tmp_path / "space.toml").write_text((config.parent / "space.toml").read_text())
    shutil.copytree(runs, tmp_path / "runs")
    row = next(row for row in result_of(runs)["methods"] if row["method"] == "blockwise")
    architecture = Architecture.parse(row["subnet"])
    with opened(again, tmp_path / "runs") as comparison:
        context, steps = comparison.context, retrained_alike(comparison, Winner(architecture, {}), 0)
        said, done = [], None
        while done is None:
            try:
                said.append(next(steps))
            except StopIteration as ended:
                done = ended.value
        assert [step.done for step in said if step.total == 3] == [1, 2, 3]
        retrained = comparison.run.path / "retrained" / done.key
        model = context.student(architecture).to(memory_format=torch.channels_last)  # as training leaves it
        restore(model, retrained.with_suffix(".pt"))
        before = simulated_confusions(quantize_network(context, model, architecture), context.val_data)
        finished_at(context, model, architecture, retrained.with_suffix(".finish.pt"))
        after = simulated_confusions(quantize_network(context, model, architecture), context.val_data)
        assert done.record.confusions == after != before and done.key not in row["retrained"]


def test_soft_targets_count(compared, tmp_path):
    """They are allowed, and another recipe is another retraining."""
    config, runs = compared
    again = tmp_path / "again.toml"
    again.write_text(config.read_text().replace('start = "scratch" }', 'start = "supernet", distillation = 0.5 }'))
    shutil.copy(config.parent / "space.toml", tmp_path / "space.toml")
    shutil.copytree(runs, tmp_path / "runs")
    found = {}
    for name in (config, again):
        with opened(name, tmp_path / "runs") as comparison:
            winner = Winner(Architecture.parse("b1_k3e2_w8+b2_k3e2-k3e2_w8"), {})
            steps = retrained_alike(comparison, winner, 0)
            while True:
                try:
                    next(steps)
                except StopIteration as ended:
                    found[name] = ended.value.record
                    break
    assert found[config].fp32 != found[again].fp32


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
    [
        ("random_blocks = 2", "random_blocks = 0"),
        ("random_blocks = 2", 'start = "blocks"'),
        ("evaluations = 6", "evaluations = -1"),
        ("parents = 2", "parent = 2"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(tmp_path, change, words):
    config = config_in(tmp_path)
    config.write_text(config.read_text().replace(change, words))
    with pytest.raises(ConfigError, match="compare"):
        load_experiment(config, Overrides())
