"""What ships: the teacher trained on beside every model, a bundle chosen without validation, budgets kept or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deploy.cli import main
from deploy.pipeline import ship as ship_module
from deploy.pipeline.ship import Final, _best, ship
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import BudgetVerdict, FinalRecord
from deploy.run.settings.deployment import Budget
from hil.measurement import Measurement
from hil.stats import summarize
from nas.estimate import Estimate
from nas.tasks.task import score_integer, training_loss
from nas.training.train import load, train
from tests.deploy.tiny_experiment import (
    REPOSITORY,
    Finished,
    arguments,
    finished_run,
    one_line,
    record,
    write_experiment,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


def context_of(config: Path, run: Run) -> Context:
    experiment, space = load_experiment(config, Overrides())
    return Context(experiment, space, run, REPOSITORY / "boards.toml")


def test_the_teacher_is_trained_on_by_the_students_recipe(finished, tmp_path):
    """Its weights are those of a plain training from the teacher's: same steps, seeds and data."""
    folder = finished.copy(tmp_path)
    with Run(folder) as run:
        context = context_of(finished.config, run)
        model, schedule = context.teacher, context.experiment.retrain
        loss = training_loss(model, context.train_data, schedule.batch_size, context.experiment.seed)
        list(train(model, loss, schedule.schedule, tmp_path / "plain.pt", "plain"))
        found, plain = (load(path)["model"] for path in (folder / "students/teacher_plus.pt", tmp_path / "plain.pt"))
        assert found.keys() == plain.keys() and all(torch.equal(found[name], plain[name]) for name in found)
        assert load(folder / "students/teacher_plus.pt")["step"] == load(folder / "students/fast.pt")["step"]


def test_the_teacher_trained_on_is_in_every_record(finished, tmp_path):
    folder = finished.copy(tmp_path)
    final, summary = (record(folder / name) for name in ("final.json", "summary.json"))
    assert final["teacher_plus"] == summary["teacher_plus"] and final["budgets"] == summary["budgets"]
    control, (fast,) = final["teacher_plus"], summary["models"]
    assert (control["name"], control["subnet"]) == ("teacher_plus", "teacher")
    assert control["size_bits"] == summary["teacher"]["size_bits"] and "miou_held_out" not in control
    assert control["latency_us"]["n"] == fast["latency_us"]["n"] == 12
    difference = fast["against_teacher_plus"]
    assert difference["value"] == pytest.approx(fast["miou_int8"] - control["miou_int8"])
    assert difference["low"] <= difference["value"] <= difference["high"] and difference["n"] == 4
    with Run(folder) as run:
        context = context_of(finished.config, run)
        graph = quantize_network(context, retrained(context, "teacher_plus"))
        assert control["miou_int8"] == score_integer(graph, context.val_data)
        (entry,) = (one for one in FinalRecord.read(folder / "final.json").models if one.name == "fast")
        architecture = context_architecture(folder)
        student = quantize_network(context, retrained(context, "fast", architecture), architecture)
        assert entry.score_held_out == score_integer(student, context.held_out_data)
    page = (folder / "report.html").read_text(encoding="utf8")
    assert "teacher_plus" in page and "the teacher trained on" in page


def context_architecture(folder: Path):
    from deploy.run.records import SearchRecord

    return SearchRecord.read(folder / "search.json").model("fast").architecture


def final(name: str, held_out: float) -> Final:
    return Final(name, "", None, 0.0, None, held_out, 1, 1, None, None)


def test_the_bundle_is_chosen_on_held_out_images_among_models_that_keep_their_budgets():
    medians = {"a": summarize([30]), "b": summarize([20]), "c": summarize([10])}
    broken = BudgetVerdict("a", "latency", 0.5, Estimate(0.9, None, 0.8, 1.0, 4, "measured"))
    models = [final("a", 40.0), final("b", 30.0), final("c", 30.0)]
    assert _best(models, [], medians).name == "a"
    assert _best(models, [broken], medians).name == "c"  # of two as accurate, the faster one
    assert _best(models, [replace(broken, name=name) for name in "abc"], medians).name == "a"


def test_a_budget_that_is_not_kept_is_exit_code_1_once_all_is_written_and_again(
    finished, tmp_path, capsys, monkeypatch
):
    folder = finished.copy(tmp_path / "runs")
    config = write_experiment(tmp_path, {"latency = 50.0 }]": "latency = 50.0, size = 50.0 }]"})
    measured = ship_module.latency_shares

    def slow(measurements: Sequence[Measurement], base: str) -> Mapping[str, Estimate]:
        shares = measured(measurements, base)
        return {**shares, "fast": Estimate(51.0, None, 50.5, 52.0, 4, "measured")}

    monkeypatch.setattr(ship_module, "latency_shares", slow)
    for stages in (["search", "retrain", "ship"], []):
        assert main(["loop", *arguments(config, tmp_path / "runs")]) == 1
        ended = capsys.readouterr()
        assert [line.split(":")[0] for line in ended.err.splitlines() if line.endswith(": starts")] == stages
        (line,) = (line for line in ended.err.splitlines() if line.startswith("hilnas: "))
        assert "budget not kept: 'fast': latency 5100.0% [5050.0%, 5200.0%]" in line
        assert "NOT KEPT" in ended.out and "budget fast: size" in ended.out
        assert record(folder / "summary.json")["bundle"]["verified"] is True
        assert [b["kept"] for b in record(folder / "final.json")["budgets"]] == [False, True]
        monkeypatch.setattr(ship_module, "ship", None)
    assert main(["report", *arguments(config, tmp_path / "runs"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["budgets"][0]["kept"] is False


@pytest.mark.parametrize("name", ["teacher", "teacher_plus"])
def test_a_budget_is_not_called_as_a_control(tmp_path, capsys, name):
    config = write_experiment(tmp_path, {'name = "fast"': f'name = "{name}"'})
    assert main(["loop", *arguments(config, tmp_path / "runs")]) == 2
    one_line(capsys.readouterr().err, f"budget '{name}'", "neither 'teacher' nor 'teacher_plus'")


def test_ship_evaluates_again_to_the_same_record(finished, tmp_path):
    """Nothing is measured again, and the intervals are the same."""
    folder = finished.copy(tmp_path)
    before = FinalRecord.read(folder / "final.json")
    with Run(folder) as run:
        list(ship(context_of(finished.config, run)))
    after = FinalRecord.read(folder / "final.json")
    assert replace(after, bundle=before.bundle) == before


def test_a_budget_that_is_undecided_is_measured_longer(finished, tmp_path, monkeypatch):
    """Rounds double while the limit is within the interval: up to four times as many, and no more once it is not."""
    asked: list[int] = []

    def measured_shares(spread: Sequence[float]):
        def shares(measurements, base):
            width = spread[len(asked) - 1]
            return {"fast": Estimate(0.85, None, 0.85 - width, 0.85 + width, 4, "measured"), base: Estimate.exact(1.0)}

        return shares

    def measuring(_context, _jobs, settings, *_given, **_named):
        asked.append(settings.rounds)
        yield from ()
        return []

    with Run(finished.copy(tmp_path)) as run:
        context = context_of(finished.config, run)
        final = SimpleNamespace(name="fast", size_bits=8, artifact=SimpleNamespace(job=lambda: None))
        monkeypatch.setattr(ship_module, "measure_with_progress", measuring)
        for limit, spread, rounds in ((0.86, (0.02, 0.005), [4, 8]), (0.85, (0.02,) * 9, [4, 8, 16])):
            asked.clear()
            monkeypatch.setattr(ship_module, "latency_shares", measured_shares(spread))
            context.experiment = replace(context.experiment, budgets=(Budget("fast", latency=limit),))
            with pytest.raises(StopIteration) as ended:
                next(ship_module._measured(context, final, final, [final]))
            assert asked == rounds
            assert ended.value.value[1][0].decided == (limit == 0.86)
