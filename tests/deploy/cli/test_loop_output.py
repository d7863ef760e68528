"""What `hilnas loop` and `hilnas agree` print: from the run's records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.cli.loop import show_agreement, show_summary
from hil.measurement import Conditions
from tests.deploy.run.test_records import AGREEMENT, CONDITIONS, DIFFERENCE, SUMMARY

REPLAYED = replace(CONDITIONS, kind="replay", board="replay of imx8mp")
MARK = "REPLAY: these latencies are a replay of imx8mp"


@pytest.mark.parametrize(("conditions", "marked"), [(REPLAYED, True), (CONDITIONS, False)])
def test_only_a_replay_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], conditions: Conditions, marked: bool
) -> None:
    show_summary(replace(SUMMARY, conditions=conditions), tmp_path)
    show_agreement(replace(AGREEMENT, conditions=conditions))
    assert capsys.readouterr().out.count(MARK) == 2 * marked


def test_the_summary_in_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No line is wrapped where no terminal is, and no name is taken for markup."""
    long = "+".join(f"b{i}_k3e6-k5e3-k7e6_w8" for i in range(1, 9))
    model = replace(
        SUMMARY.models[0], name="[fast]", subnet=long, scheme="tensor uint8", against_teacher_plus=DIFFERENCE
    )
    show_summary(replace(SUMMARY, models=(model,)), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert f"  [fast]: {long} (tensor uint8)" in lines
    difference = "-0.50 points [-1.10, +0.10] against the teacher trained on, over 64 images: no difference shown"
    kept = "latency 89.0% [88.0%, 91.0%] of the teacher's, at most 90.0%: kept (the limit is within the interval)"
    assert f"  [fast]: {difference}" in lines and f"budget fast: {kept}" in lines
    assert any("teacher_plus" in line and "70.50" in line for line in lines)
    assert f"report: {tmp_path / 'report.html'}; summary: {tmp_path / 'summary.json'}; 1 s of work in all" in lines
    assert any("[fast]" in line and "70.50" in line and "4, 8 / 4, 8 / 8" in line for line in lines)


def test_the_agreement_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_agreement(AGREEMENT)
    said = capsys.readouterr().out
    for words in ("tau-b 0.9700 [0.9000, 0.9900] over 36 models", "top-10 recall 0.900", "excluded: b1_k3e2_w8",
                  "predicted badly: ", "correction applied: held-out tau-b 0.9700", "gate: tau-b 0.9700"):  # fmt: skip
        assert words in said
