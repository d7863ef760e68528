"""The page of a run, and the mark that it bears where no board measured for it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.report.models import bits_text, off_text
from deploy.report.page import write_report
from deploy.run.records import DataRecord, MeasuredTail, Record, TailRecord
from nas.estimate import Estimate
from tests.deploy.run_records import agreement, search, summary

MARK = "REPLAY: these latencies are a replay of imx8mp"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BROWSER = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking "
    "--disable-component-update --disable-sync --dump-dom"
)
POINTING = """<script>
const mark = document.querySelector("svg.plot polygon").getBoundingClientRect();
document.querySelector("svg.plot").dispatchEvent(
  new PointerEvent("pointermove", { clientX: mark.left + 2, clientY: mark.top + 2 }));
</script>"""


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
        "fast: -0.50 points [-1.25, +0.25] against the teacher trained on, over 4 images: no difference shown",
        "budget fast: latency 100.0% [95.0%, 105.0%] of the teacher&#x27;s, at most 90.0%: NOT KEPT",
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


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_names_what_is_pointed_at(tmp_path: Path) -> None:
    pointed = tmp_path / "pointed.html"
    pointed.write_text(written(tmp_path).replace("</body>", f"{POINTING}</body>"), encoding="utf8")
    command = [str(CHROMIUM), *BROWSER.split(), f"--user-data-dir={tmp_path / 'profile'}", pointed.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    tip = re.search(r'<div id="tip"([^>]*)>([^<]*)</div>', dom)
    assert tip is not None and "hidden" not in tip[1] and "1.500 ms, mIoU 49.00 %" in tip[2], json.dumps(tip and tip[0])
