"""What ships: the teacher trained on beside every model, a bundle chosen without validation, budgets kept or not."""

from __future__ import annotations

import json
import shutil
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
from deploy.run.records import BudgetVerdict, FinalRecord, LatencyRecord
from deploy.run.settings.deployment import Budget
from deploy.ship.board_scores import board_scores
from deploy.ship.manifest import Manifest
from hil.boards.catalog import find_board
from hil.measurement import Measurement
from hil.outputs import InputOutputs, outputs_of
from nas.estimate import Estimate
from nas.tasks.counted import Counted
from nas.tasks.task import counted_integer, score_integer, training_loss
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


def latency(us: float) -> LatencyRecord:
    return LatencyRecord(us, us, 1, (us, us))


def final(name: str, held_out: float) -> Final:
    return Final(name, "", None, 0.0, None, held_out, 1, 1, None, None)


def test_the_bundle_is_chosen_on_held_out_images_among_models_that_keep_their_budgets():
    latencies = {"a": latency(30), "b": latency(20), "c": latency(10)}
    broken = BudgetVerdict("a", "latency", 0.5, Estimate(0.9, None, 0.8, 1.0, 4, "measured"))
    models = [final("a", 40.0), final("b", 30.0), final("c", 30.0)]
    assert _best(models, [], latencies).name == "a"
    assert _best(models, [broken], latencies).name == "c"  # of two as accurate, the faster one
    assert _best(models, [replace(broken, name=name) for name in "abc"], latencies).name == "a"


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


def test_the_board_scores_what_the_integers_score(finished, tmp_path):
    """On a loopback exactly, in every record, and in the bundle's manifest and README."""
    final, summary = (record(finished.folder / name) for name in ("final.json", "summary.json"))
    assert len(summary["models"]) == 1
    for model in (*final["models"], final["teacher_plus"]):
        board = model["board"]
        assert board["score"]["value"] == model["miou_int8"] and board["score"]["n"] == 4 and "failed" not in board
        assert [board["against_int8"][name] for name in ("value", "low", "high")] == [0, 0, 0]
        assert board["score"]["low"] <= board["score"]["value"] <= board["score"]["high"]
    assert summary["models"][0]["board"] == final["models"][1]["board"]
    shipped, manifest = final["models"][1], Manifest.read(finished.folder / "bundle/manifest.json")
    accuracy = manifest.accuracy
    assert accuracy is not None and accuracy.board is not None and accuracy.on == "loopback"
    assert (accuracy.metric, accuracy.data, accuracy.split) == ("mIoU", "scenes", "val")
    assert accuracy.int8 == accuracy.board.score.value == shipped["miou_int8"]
    assert accuracy.fp32 == shipped["miou_fp32"]
    text = f"{shipped['miou_int8']:.2f} % ["
    assert text in manifest.facts["mIoU (on loopback, validation)"]
    assert text in (finished.folder / "bundle/README.md").read_text(encoding="utf8")
    page = (finished.folder / "report.html").read_text(encoding="utf8")
    assert "<th>mIoU by the board, %</th>" in page and "scores on loopback what the integer simulation scores" in page
    out = tmp_path / "other"
    assert main(["bundle", "export", "--run", str(finished.folder), "--model", "teacher", "--out", str(out)]) == 0
    exported = Manifest.read(out / "manifest.json").accuracy
    assert exported is not None and exported.board is not None
    assert exported.board.score.value == final["models"][0]["miou_int8"]


def test_what_the_board_scored_is_not_scored_again(finished, tmp_path, monkeypatch):
    folder = finished.copy(tmp_path)
    assert {path.stem for path in (folder / "evaluations").iterdir()} == {"teacher", "teacher_plus", "fast"}
    monkeypatch.setattr("deploy.ship.evaluation.outputs_of", lambda *_, **__: (1 / 0 for _ in range(9)))
    with Run(folder) as run:
        context = context_of(finished.config, run)
        (name, path), int8 = ("fast", folder / "models/fast.tflite"), _int8(context)
        steps = board_scores(context, {name: (path, int8)}, 0)
        assert [step.text for step in iter(steps)] == ["fast scored on loopback"]


def _int8(context: Context) -> Counted:
    architecture = context_architecture(context.path)
    graph = quantize_network(context, retrained(context, "fast", architecture), architecture)
    return counted_integer(graph, context.val_data)


def test_images_that_the_board_fails_on_are_left_out_aloud(finished, tmp_path, monkeypatch, caplog):
    folder = finished.copy(tmp_path)
    shutil.rmtree(folder / "evaluations")

    def failing(session, model, inputs, **options):
        for number, found in enumerate(outputs_of(session, model, inputs, **options)):
            yield InputOutputs(b"", failure="killed by SIGSEGV") if number == 1 else found

    monkeypatch.setattr("deploy.ship.evaluation.outputs_of", failing)
    with Run(folder) as run, caplog.at_level("WARNING"):
        context = context_of(finished.config, run)
        int8 = _int8(context)
        steps = board_scores(context, {"fast": (folder / "models/fast.tflite", int8)}, 0)
        found = ended_with(steps)["fast"]
    assert found.failed == ("scenes 1",) and found.score.n == 3 and found.against_int8.value == 0
    assert "failed on 1 of 4 validation images" in caplog.text and "scenes 1: board: killed by SIGSEGV" in caplog.text


def ended_with(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_board_that_gives_no_outputs_has_no_score(finished, tmp_path, caplog):
    with Run(finished.copy(tmp_path)) as run, caplog.at_level("WARNING"):
        context = context_of(finished.config, run)
        for change in ({"kind": "replay", "store": "x"}, {"driver": "benchmark_model"}):
            context.board = replace(find_board(None, "loopback"), **change)
            assert ended_with(board_scores(context, {"fast": (Path("none"), None)}, 0)) == {}
    assert caplog.text.count("gives no outputs") == 2
