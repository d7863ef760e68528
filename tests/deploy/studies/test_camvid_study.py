"""The CamVid study: its steps are taken once and go on, its verdicts follow from what is published of each image."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deploy.cli import main
from deploy.compare.records import MethodRecord, Spent
from deploy.formats.journal import Journal
from deploy.lcpaq.records import ShippedRecord
from deploy.ship.evaluation import ImageScore
from deploy.studies.ablation import Ablated, AblationRecord
from deploy.studies.camvid import findings
from deploy.studies.camvid.conduct import StepFailedError, StepRecord, _output_path, conduct, left
from deploy.studies.camvid.evidence import IMAGES, FinishedRun, ModelEvidence
from deploy.studies.camvid.findings import BLOCK, collect, verdict
from deploy.studies.camvid.plan import StudyStep, chosen, lcpaq_step, steps
from deploy.studies.camvid.record import CamvidRecord
from deploy.studies.camvid.tables import rows
from deploy.studies.finish import BothWays, FinishRecord
from deploy.studies.finished_controls import FinishedControl, FinishedControls
from deploy.studies.widths import HomogeneousModel, WidthsRecord
from hil.errors import UsageError
from hil.stats import LatencySummary
from nas.estimate import Estimate
from nas.tasks.counted import Counted, trained_difference
from tests.deploy.tiny_experiment import finished_run
from tests.hil.stored_measurements import CONDITIONS

LATENCY = LatencySummary(900.0, 950.0, 960.0, 5.0, (890.0, 910.0), 30)
WELL = StudyStep("well", ("space", "table1"), 1)
WRONG = StudyStep("wrong", ("space", "no-such-space"), 1)


def test_a_step_that_is_done_is_not_taken_again(tmp_path: Path) -> None:
    assert left([WELL], tmp_path) == [WELL]
    before, after = conduct([WELL], tmp_path)
    assert before == (WELL, None) and after[1] is not None and after[1].code == 0
    assert left([WELL], tmp_path) == []
    assert left([replace(WELL, arguments=("space", "demo"))], tmp_path), "another command is another step"


def test_a_command_that_cannot_work_stops_the_study(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StepFailedError, match=r"step 'wrong' ended with 2; put that right") as caught:
        list(conduct([WRONG, WELL], tmp_path))
    assert caught.value.exit_code == 2
    assert "no-such-space" in capfd.readouterr().err
    assert left([WRONG, WELL], tmp_path) == [WRONG, WELL]
    assert [path.suffix for path in (tmp_path / "steps").iterdir()] == [".part"], "no half output counts"


def test_a_command_that_printed_no_result_did_not_end_with_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "__init__.py").touch()
    (tmp_path / "deploy" / "cli.py").write_text("raise KeyError('a fault of ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StepFailedError, match=r"step 'well' ended with 1; put that right"):
        list(conduct([WELL], tmp_path))
    assert left([WELL], tmp_path) == [WELL] and not (tmp_path / "steps" / "well.json").exists()


def test_a_check_that_did_not_hold_is_a_result_and_stops_what_needs_it(tmp_path: Path) -> None:
    StepRecord("wrong", WRONG.command, 1, 2.0).write(tmp_path / "steps" / "wrong.json")
    needing = replace(WELL, name="needing", needs=("wrong",))
    taken = [step.name for step, record in conduct([needing, WELL], tmp_path) if record]
    assert taken == ["well"]
    assert left([WRONG, needing, WELL], tmp_path) == [WRONG, needing], "it may hold the next time"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 1.0, "better"), (-0.99, 3.0, "without loss"), (-1.0, 3.0, "undecided"), (-4.0, -2.0, "undecided")],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(Estimate(0.5, 0.1, low, high, 101, "resampled")) == expected


@pytest.fixture
def study(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[StudyStep], Path]:
    """Two seeds that are done, of one tiny run; the second one's board had other answers."""
    finished, out = finished_run(tmp_path_factory), tmp_path / "out"
    planned = steps("camvid:x", Path("encoder.tflite"), out, (0, 1))
    for seed in (0, 1):
        shutil.copytree(finished.folder, out / f"seed{seed}")
        step = planned[seed]
        StepRecord(step.name, step.command, 0, 60.0).write(out / "steps" / f"{step.name}.json")
    path = out / "seed1" / "evaluations" / "fast.jsonl"
    journal = Journal.latest(path, ImageScore)
    better = [replace(score, confusions=dict.fromkeys(score.confusions, _right(score))) for score in journal.read()]
    journal.rewrite(better)
    return planned, out


def _right(score: ImageScore) -> tuple[tuple[int, int, int], ...]:
    """The same labels, all predicted."""
    (cells,) = score.confusions.values()
    labels = sorted({label for label, _, _ in cells})
    return tuple((label, label, sum(n for of, _, n in cells if of == label)) for label in labels)


def test_every_difference_follows_from_what_is_published(study: tuple[list[StudyStep], Path]) -> None:
    planned, out = study
    record = collect(planned, (0, 1), out)
    assert CamvidRecord.read(out / CamvidRecord.FILE) == record
    images = pd.read_parquet(out / IMAGES)
    assert (
        set(images["image"]) == set(range(4)) and (images.groupby(["seed", "model", "image"])["pixels"].sum() > 0).all()
    )

    def counted(seed: int, model: str) -> Counted:
        found = images[(images["seed"] == seed) & (images["model"] == model)]
        hits, totals = np.zeros((2, 4, 11), np.int64)
        for row in found.itertuples():
            for labelled in {row.label, row.predicted}:
                totals[row.image, labelled] += row.pixels
            hits[row.image, row.label] += row.pixels * (row.label == row.predicted)
        return Counted(hits, totals)

    claims = {claim.name: claim for claim in record.claims}
    assert set(claims) == {"teacher", "fast"}
    for name, claim in claims.items():
        ours, theirs = ([counted(seed, one) for seed in (0, 1)] for one in (name, "teacher_plus"))
        assert claim.difference == trained_difference(ours, theirs, block=BLOCK)
        assert claim.verdict == verdict(claim.difference)
    scores = {(model.seed, model.name): model.score for model in record.models}
    assert scores[1, "fast"] == 100.0 and scores[0, "fast"] < 100.0
    assert [agreed.seed for agreed in record.agreements] == [0, 1]
    assert {cost.stage for cost in record.costs} >= {"teacher", "distil", "tables", "ship"}
    assert {step.command.split()[4] for step in record.steps} == {"--data"} and str(out) not in str(record.steps)
    text = "\n".join(rows(record))
    assert f"| fast | {np.mean([scores[0, 'fast'], 100.0]):.2f} |" in text and "seeds 0, 1" in text


def test_models_by_the_same_recipe(study: tuple[list[StudyStep], Path]) -> None:
    planned, out = study
    assert not collect(planned, (0, 1), out).same_recipe
    runs = [FinishedRun.read(out / f"seed{seed}", seed) for seed in (0, 1)]
    for run, step in zip(runs, (step for step in planned if step.name in ("finish0", "finish1")), strict=True):
        ours, theirs = (run.evidence[name].confusions for name in ("fast", "teacher_plus"))
        ways = (BothWays("teacher_plus", 0.0, 0.0, theirs, ours), BothWays("fast", 0.0, 0.0, ours, theirs))
        FinishRecord("mIoU", 2, ways).write(out / f"seed{run.seed}" / FinishRecord.FILE)
        StepRecord(step.name, step.command, 0, 60.0).write(out / "steps" / f"{step.name}.json")
    record = collect(planned, (0, 1), out)
    assert CamvidRecord.read(out / CamvidRecord.FILE) == record
    teacher, fast = record.same_recipe
    (claim,) = (claim for claim in record.claims if claim.name == "fast")
    assert fast.plain == claim.difference and fast.finished.value == pytest.approx(-fast.plain.value)
    assert (teacher.plain.value, teacher.finished.value) == (0, 0) and fast.seeds == (0, 1)
    assert fast.plain_score == pytest.approx(teacher.finished_score)
    images = pd.read_parquet(out / IMAGES)
    assert {"final", "with finish", "without finish"} == set(images["kind"])
    text = "\n".join(rows(record))
    assert f"| fast | {fast.plain_score:.2f} | {fast.finished_score:.2f} | {fast.plain.value:+.2f} [" in text


def test_seeds_of_two_machines_are_joined_as_if_of_one(
    study: tuple[list[StudyStep], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned, out = study
    whole = collect(planned, (0, 1), out)
    parts = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(parts):
        shutil.copytree(out / f"seed{seed}", folder / f"seed{seed}")
        shutil.copytree(out / "steps", folder / "steps")
        (folder / "steps" / f"seed{1 - seed}.json").unlink()
        collect(planned, (0, 1), folder)
    assert main(["study", "join", str(parts[1]), str(parts[0]), "--out", str(tmp_path / "joined")]) == 0
    assert "| fast |" in capsys.readouterr().out
    joined = CamvidRecord.read(tmp_path / "joined" / CamvidRecord.FILE)
    assert replace(joined, steps=whole.steps) == whole and set(joined.steps) == set(whole.steps)
    ours, theirs = (pd.read_parquet(folder / IMAGES) for folder in (tmp_path / "joined", out))
    assert ours.astype(str).equals(theirs.astype(str))
    assert main(["study", "join", str(parts[0]), str(out), "--out", str(tmp_path / "twice")]) == 2
    assert "two have 'teacher' (final) of seed 0; join results of different seeds" in capsys.readouterr().err
    (parts[0] / IMAGES).write_bytes(b"no parquet")
    assert main(["study", "join", *map(str, parts), "--out", str(tmp_path / "broken")]) == 2
    assert "camvid.parquet: not the images' results of a study" in capsys.readouterr().err
    shutil.copy(parts[1] / IMAGES, parts[0] / IMAGES)
    assert main(["study", "join", *map(str, parts), "--out", str(tmp_path / "broken")]) == 2
    assert "no results of teacher of seed 0, which camvid.json has" in capsys.readouterr().err
    assert main(["study", "join", str(tmp_path), "--out", str(tmp_path / "none")]) == 2
    assert "no camvid.json; give a folder that `hilnas study camvid` wrote" in capsys.readouterr().err
    assert not any((tmp_path / name).exists() for name in ("twice", "broken", "none"))


def test_controls_are_compared_with_the_same_steps_too(
    study: tuple[list[StudyStep], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, out = study
    run = FinishedRun.read(out / "seed0", 0)
    ours, theirs = (run.evidence[name].confusions for name in ("fast", "teacher_plus"))
    method = MethodRecord(
        *(
            "random_blocks",
            "b1",
            None,
            0,
            True,
            None,
            800.0,
            None,
            (50.0,),
            (50.0,),
            {"teacher": Spent(1.0, 2.0)},
            None,
        ),
        against={},
        retrained=("key",),
    )
    beside = ModelEvidence(0, "fast: random_blocks", "b1", theirs)
    monkeypatch.setattr(findings, "compared", lambda *_: iter([(method, beside)]))
    (out / "seed0" / "compare").mkdir(exist_ok=True)
    FinishedControls("mIoU", 2, (FinishedControl("fast", "random_blocks", "b1", "key", 50.0, 51.0, ours),)).write(
        out / "seed0" / FinishedControls.FILE
    )
    FinishRecord(
        "mIoU", 2, (BothWays("fast", 0.0, 0.0, ours, theirs), BothWays("teacher_plus", 0.0, 0.0, *[ours] * 2))
    ).write(out / "seed0" / FinishRecord.FILE)
    for step in planned:
        if step.name in ("controls-fast", "finish0", "finished-controls"):
            StepRecord(step.name, step.command, 0, 60.0).write(out / "steps" / f"{step.name}.json")
    (control,) = collect(planned, (0, 1), out).controls
    assert control.finished_found and control.finished_found.value == pytest.approx(-control.found.value)
    assert control.finished_score == run.evidence["fast"].counted.score
    kinds = set(pd.read_parquet(out / IMAGES)["kind"])
    assert {"fast: random_blocks", "with finish, fast: random_blocks"} <= kinds
    text = "\n".join(rows(CamvidRecord.read(out / CamvidRecord.FILE)))
    assert f"| {control.finished_score:.2f} | {control.finished_found.value:+.2f} [" in text


def test_what_each_part_of_the_recipe_is_worth(study: tuple[list[StudyStep], Path]) -> None:
    planned, out = study
    run = FinishedRun.read(out / "seed0", 0)
    ours, theirs = (run.evidence[name].confusions for name in ("fast", "teacher_plus"))
    rows_of = (
        ("teacher_plus", "nothing", theirs),
        ("teacher_plus", "soft targets", ours),
        ("fast", "nothing", ours),
        ("fast", "soft targets", theirs),
    )
    nothing = Estimate(0.0, 0.0, 0.0, 0.0, 4, "resampled")
    AblationRecord("mIoU", tuple(Ablated(name, without, 0.0, nothing, of) for name, without, of in rows_of)).write(
        out / "seed0" / AblationRecord.FILE
    )
    step = next(step for step in planned if step.name == "ablation")
    StepRecord(step.name, step.command, 0, 60.0).write(out / "steps" / f"{step.name}.json")
    record = collect(planned, (0, 1), out)
    assert CamvidRecord.read(out / CamvidRecord.FILE) == record
    *others, whole, without = record.ablation
    assert {other.model for other in others} == {"teacher_plus"} and not any(other.against for other in others)
    assert (whole.without, whole.change.value) == ("nothing", 0) and without.without == "soft targets"
    expected = trained_difference([run.evidence["teacher_plus"].counted], [run.evidence["fast"].counted], block=BLOCK)
    assert whole.against and whole.against.value == -expected.value and without.against == expected
    assert without.change == expected and "recipe without soft targets" in set(pd.read_parquet(out / IMAGES)["kind"])
    assert f"| 0 | fast | soft targets | {without.score:.2f} | {expected.value:+.2f} [" in "\n".join(rows(record))


@pytest.mark.parametrize("board_gives_outputs", [True, False])
def test_lcpaqs_policies_are_compared_image_by_image(
    board_gives_outputs: bool, study: tuple[list[StudyStep], Path]
) -> None:
    planned, out = study
    run, folder = FinishedRun.read(out / "seed0", 0), out / "seed0" / "evaluations"
    images = {name: Journal.latest(folder / f"{name}.jsonl", ImageScore).read() for name in ("fast", "teacher_plus")}
    for name, share in (("fast", 67), ("teacher_plus", 58)):  # what another share shipped stays in the file
        Journal(folder / "lcpaq-small.jsonl", ImageScore, f"of {share}").append(*images[name])
        step = next(step for step in planned if step.name == lcpaq_step("small", share))
        StepRecord(step.name, step.command, 0, 60.0).write(out / "steps" / f"{step.name}.json")
        shipped = ShippedRecord(
            key="k", quantized_by="the run's scheme", metric="mIoU", fp32=50.0, int8=49.0, int8_all8=50.0,
            size_bits=800, latency=LATENCY, conditions=CONDITIONS, bundle="b", verified=True,
            evaluation=f"of {share}" if board_gives_outputs else None,
        )  # fmt: skip
        _output_path(step, out).write_text(json.dumps({"shipped": shipped.to_json()}))
    at_67, at_58 = (width for width in collect(planned, (0, 1), out).widths if width.bits is None)
    assert (at_67.name, at_67.score, at_67.bits) == ("small, LCPAQ at 67 %", 49.0, None)
    assert at_67.size_share == pytest.approx(800 / run.teacher.size_bits)
    kinds = set(pd.read_parquet(out / IMAGES)["kind"])
    if not board_gives_outputs:
        assert at_67.difference is None and not kinds & {"LCPAQ at 67 %", "LCPAQ at 58 %"}
        return
    fast, theirs = (run.evidence[name].counted for name in ("fast", "teacher_plus"))
    assert at_67.difference == trained_difference([fast], [theirs], block=BLOCK)
    assert at_58.difference and at_58.difference.value == 0
    assert {"LCPAQ at 67 %", "LCPAQ at 58 %"} <= kinds


def test_an_image_without_a_result_is_named(study: tuple[list[StudyStep], Path]) -> None:
    planned, out = study
    journal = Journal.latest(out / "seed0" / "evaluations" / "fast.jsonl", ImageScore)
    scores = journal.read()
    journal.rewrite([replace(scores[0], confusions={}, failure="board: gone"), *scores[1:]])
    with pytest.raises(UsageError, match=r"fast\.jsonl: not every validation image has a result; run .*'seed0'"):
        collect(planned, (0, 1), out)


def test_nothing_done_is_an_empty_record(tmp_path: Path) -> None:
    record = collect(steps("camvid:x", Path("e.tflite"), tmp_path), (0, 1, 2, 3, 4), tmp_path)
    assert record.claims == record.models == record.steps == () and not list(rows(record))


def test_the_plan_is_shown_with_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "camvid", "--data", "camvid:x", "--encoder-from", "e.tflite", "--out", str(tmp_path)]
    assert main([*command, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "hilnas loop --config camvid --data camvid:x" in said and "24 steps to take, about 1" in said
    assert not list(tmp_path.iterdir())
    assert main([*command, "--plan", "--only", "seed0,widths"]) == 0
    assert "2 steps to take" in capsys.readouterr().out
    assert main([*command, "--only", "seed9"]) == 2
    assert "--only seed9: no such step; there are seed0, seed1" in capsys.readouterr().err
    assert main([*command, "--seeds", "one"]) == 2


def test_any_seed_may_have_the_controls(study: tuple[list[StudyStep], Path]) -> None:
    out = study[1]
    planned = steps("camvid:x", Path("encoder.tflite"), out, (0, 1), 1)
    assert planned[:2] == study[0][:2], "the seeds' own commands stay"
    assert all("seed1" in step.needs for step in planned if step.name in ("controls-fast", "widths", "ablation"))
    loop, *_ = (step for step in planned if step.name == "seed1")
    for step in planned:
        if step.name.startswith(("controls-", "lcpaq-")):  # it goes on from the agreement that the run has
            assert loop.arguments[-2:] == ("--models", "24") and "agreement.models=24" in step.arguments
    ours = FinishedRun.read(out / "seed1", 1).evidence["fast"].confusions
    WidthsRecord("mIoU", 0, (HomogeneousModel("small", 6, "b1", 50.0, 800, ours),)).write(
        out / "seed1" / WidthsRecord.FILE
    )
    step = next(step for step in planned if step.name == "widths")
    StepRecord(step.name, step.command, 0, 60.0).write(out / "steps" / f"{step.name}.json")
    (width,) = collect(planned, (0, 1), out, 1).widths
    assert (width.seed, width.name, width.bits) == (1, "small", 6)
    with pytest.raises(UsageError, match="--controls 7: none of the seeds 0, 1"):
        steps("camvid:x", Path("encoder.tflite"), out, (0, 1), 7)


def test_steps_are_chosen_in_the_order_of_the_plan() -> None:
    planned = steps("camvid:x", Path("e.tflite"), Path("out"))
    assert [step.name for step in chosen(planned, "widths,seed1")] == ["seed1", "widths"]
    assert chosen(planned, None) == planned
