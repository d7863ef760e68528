"""The page of a run, and the mark that it bears where no board measured for it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.report.models import bits_text, off_text
from deploy.report.page import write_report
from deploy.run.records import BoardScore, DataRecord, MeasuredTail, Record, Summary, TailRecord
from nas.estimate import Estimate
from tests.deploy.run_records import agreement, search, summary

MARK = "REPLAY: these latencies are a replay of imx8mp"


def written(folder: Path, **of_summary: str | int) -> str:
    return drawn(folder, summary(**of_summary), agreement(), search())


def drawn(folder: Path, *records: Record) -> str:
    for record in records:
        record.write(folder / record.FILE)
    return write_report(folder).read_text(encoding="utf8")


@pytest.mark.parametrize(("kind", "board"), [("replay", "replay of imx8mp"), ("ssh", "imx8mp")])
def test_only_a_replay_is_marked(tmp_path: Path, kind: str, board: str) -> None:
    marked = kind == "replay"
    page = written(tmp_path, kind=kind, board=board)
    assert (f'<p class="warning">{MARK}' in page) == marked
    assert ("Replayed, not measured: board replay of imx8mp" in page) == marked
    assert ("Measured on: board imx8mp" in page) != marked


def test_the_page_has_the_models_and_what_the_agreement_means(tmp_path: Path) -> None:
    page = written(tmp_path)
    for words in ("at most 1.0 % slower", "1 sampled models failed", "at least 0.95 (--tau", "DOES NOT HOLD"):
        assert words in page
    for cell in ("teacher", "49.00", "47.50", "4, 8 / 8 / 8", "12.5% off imx8mp-vx&#x27;s NPU", "1.500", "1.600", "30"):
        assert f"<td>{cell}</td>" in page
    assert "<th>mIoU INT8, %</th>" in page and "b1_k3e1_w8" in page and "teacher 80 s" in page
    assert "verified on imx8mp" in page and "Training" not in page


def test_the_page_says_what_the_tail_saves(tmp_path: Path) -> None:
    assert "tail:" not in written(tmp_path)
    share = Estimate(0.4, None, 0.39, 0.41, 4, "measured")
    tails = (MeasuredTail("classes", 40.0, 9e3), MeasuredTail("logits", 40.0, 4e3, 900.0, share))
    TailRecord("logits", "mIoU", 0.5, tails).write(tmp_path / TailRecord.FILE)
    page = written(tmp_path)
    assert "<li>tail: logits at output stride" in page and "saves 60% [59%, 61%] of the teacher&#x27;s latency" in page


@pytest.mark.parametrize(("shared", "marked"), [(("val/<a>.png",), True), ((), False)])
def test_validation_images_that_were_trained_on_are_marked(
    tmp_path: Path, shared: tuple[str, ...], marked: bool
) -> None:
    DataRecord("", 8, 4, "", "", shared).write(tmp_path / DataRecord.FILE)
    said = "1 of 4 validation images are in the training split too, as val/&lt;a&gt;.png"
    assert (f'<p class="warning">{said}' in written(tmp_path)) == marked


def test_the_page_has_the_controls_and_the_budgets(tmp_path: Path) -> None:
    page = written(tmp_path)
    for words in (
        "teacher_plus: the teacher trained on by the selected models&#x27; recipe",
        "<th>points against teacher_plus [95 % interval] on 4 images</th>",
        "<td>-0.50 [-1.25, +0.25]: no difference shown</td><td>46.00</td>",
        "<td>latency 100.0% [95.0%, 105.0%] of the teacher&#x27;s, at most 90.0%: NOT KEPT</td>",
    ):
        assert words in page
    assert "<td>teacher_plus</td>" in page and page.count('<tr class="subnet">') == 1


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """Nothing is fetched, it is well-formed, small, and all that it says is there without its script."""
    page = written(tmp_path)
    assert "http" not in page and not re.search(r"<(link|img|iframe)|\bsrc=|@import|url\(", page)
    root = ET.fromstring(page)  # noqa: S314 (we wrote it)
    for script in root.iter("script"):
        script.text = ""
    said = "".join(root.itertext())
    for words in ("Exact Pareto front", "noise ceiling", "predicted 1.000 ms, NSR 3.0000", "+25.0 %"):
        assert words in said
    assert len(page) < 60_000


def test_a_large_front_stays_small(tmp_path: Path) -> None:
    assert len(drawn(tmp_path, summary(), agreement(), search(points=40_000))) < 300_000


def test_a_run_with_nothing_selected_is_drawn(tmp_path: Path) -> None:
    drawn(tmp_path, summary(models=0), agreement(offenders=0), search(points=0))
    ET.parse(tmp_path / "report.html")  # noqa: S314 (we wrote it)


def test_training_curves_of_the_folder_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "students").mkdir()
    for name in ("teacher", "students/fast"):
        (tmp_path / f"{name}.training.csv").write_text("step,loss,learning_rate,seconds\n1,2.0,0.1,1\n2,1.0,0.2,2\n")
    page = written(tmp_path)
    assert page.index("teacher: 2 steps, 3 s") < page.index("fast: 2 steps, 3 s") and "fast: learning rate" in page


def test_words_for_bits_and_placement() -> None:
    teacher, _, fast = summary().all_models
    assert bits_text(teacher) == "4, 8 / 8 / 8" and off_text(teacher) == "12.5% off imx8mp-vx's NPU"
    assert off_text(fast) == "?"


def test_the_first_screen_says_what_to_ship_and_why(tmp_path: Path) -> None:
    first = drawn(tmp_path, bundled(kept=True), agreement(), search()).split("<h2>")[0]
    for words in (
        "mIoU on 4 validation images of scenes, 112 x 144; latency on imx8mp (i.MX8M Plus).",
        "Ship <b>fast</b>: 47.50 % mIoU in the integer simulation, -0.50 points [-1.25, +0.25] against teacher_plus",
        "Why <b>fast</b>: it keeps its budget (latency at most 100.0% of the teacher&#x27;s), and of the 2 models that "
        "keep theirs it is the best on training images held out to choose by: 46.00 % (large 45.00).",
        "Validation images choose nothing; on them these score more: large 48.50.",
        "✓ outputs of 12 of 12 measured subnets",
        "fast (bundled)",
    ):
        assert words in first


def test_what_is_not_to_be_shipped_yet_has_no_reason(tmp_path: Path) -> None:
    first = drawn(tmp_path, bundled(kept=False), agreement(), search()).split("<h2>")[0]
    assert "<b>Do not ship yet</b>: 0 of 1 limits kept, not of fast." in first
    assert "✗ 0 of 1 limits kept" in first and "Why" not in first


def bundled(*, kept: bool) -> Summary:
    """A run with a second model, the gate held."""
    run = summary()
    (fast,) = run.models
    large = replace(fast, name="large", score_held_out=45.0, score_int8=48.5)
    budgets = tuple(replace(verdict, limit=1.0 if kept else 0.9) for verdict in run.budgets)
    return replace(run, models=(fast, large), budgets=budgets, gate=replace(run.gate, holds=True))


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_a_board_that_scores_otherwise_is_named(tmp_path: Path, off: float) -> None:
    run, score = summary(), Estimate(48.0, None, 47.0, 49.0, 4, "resampled")
    differing = BoardScore(score, Estimate(off, None, off, off, 4, "resampled"))
    same = BoardScore(score, Estimate(0.0, None, 0.0, 0.0, 4, "resampled"))
    scored = replace(run, teacher=replace(run.teacher, board=differing), models=(replace(run.models[0], board=same),))
    page = drawn(tmp_path, scored, agreement(), search())
    assert ("<li>teacher: on imx8mp 48.00 %, +0.10 points" in page) == (off > 0)
    assert f"<li>every {'other ' if off else ''}model scores on imx8mp what the integer simulation scores" in page


def test_offenders_lead_to_their_rows(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert page.count("<a href='#offender-1' aria-label='1'>") == 2, "on a screen and on a phone"
    assert page.count('id="offender-1"') == 1
