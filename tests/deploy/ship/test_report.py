"""The page of a run, and the mark that it bears where no board measured for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.cli import console
from deploy.ship.report import write_report

MODEL = {
    "name": "teacher", "subnet": "teacher", "miou_fp32": 50.0, "miou_int8": 49.0, "size_bits": 8000, "macs": 10**6,
    "latency_us": {"median": 1500.0, "p90": 1600.0, "n": 30},
}  # fmt: skip
AGREEMENT = {
    "tau_b": 0.9, "ci95": [0.8, 0.95], "n_models": 3, "spearman": 0.9, "ceiling_tau_b": 0.95, "offset_us": 1.0,
    "error_percent": 1.5, "top_k": 1, "top_recall": 1.0, "top_recall_ci95": [0.0, 1.0],
}  # fmt: skip
GATE = {"tau_b": 0.9, "of": "the table as measured", "tau": 0.95, "override": True, "holds": False}
JUDGED = {
    "agreement": AGREEMENT, "samples": [{"additive_us": 1.0, "measured_us": 2.0, "subnet": "s"}],
    "excluded": [{"subnet": "f", "reason": "hung"}], "offenders": [], "with_feedback": None, "gate": GATE,
    "regret": {"quantity": "nsr", "budgets": [{"quantile": 0.5, "percent": 1.0}], "worst_percent": 1.0},
}  # fmt: skip
CORRECTION = {"applied": True, "tau_b_held_out": 0.9, "error_before": 5.0, "error_held_out": 2.0}
MARK = "REPLAY: these latencies are a replay of imx8mp"


def summary(kind: str, board: str) -> dict[str, Any]:
    return {
        "name": "run", "conditions": {"kind": kind, "board": board, "threads": 1}, "teacher": MODEL, "models": [],
        "agreement": AGREEMENT, "correction": CORRECTION, "seconds": {"total": 1.0},
        "counts": {"subnets_compiled": 1, "subnets_measured": 1, "subnets_exact_parity": 1},
        "bundle": {"path": "bundle", "model": "teacher", "verified": True, "board": board},
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "board"), [("replay", "replay of imx8mp"), ("ssh", "imx8mp")])
def test_only_a_replay_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, board: str) -> None:
    record = summary(kind, board)
    write_report(tmp_path / "report.html", record, JUDGED, {"pareto_front": [], "selected": []})
    page = (tmp_path / "report.html").read_text()
    console.summary(record, tmp_path)
    console.agreement({**JUDGED, "correction": CORRECTION, "conditions": record["conditions"]})
    said = capsys.readouterr().out
    marked = kind == "replay"
    assert (f'<p class="replay">{MARK}' in page) == marked
    assert ("Replayed, not measured: board replay of imx8mp" in page) == marked
    assert ("Measured on: board imx8mp" in page) != marked
    assert said.count(MARK) == 2 * marked


def test_the_report_says_what_the_agreement_means(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", {**summary("ssh", "b"), "gate": GATE}, JUDGED, {"pareto_front": [], "selected": []})
    page = (tmp_path / "report.html").read_text()
    for words in ("at most 1.0 % slower", "1 sampled models failed", "at least 0.95 (--tau", "DOES NOT HOLD"):
        assert words in page
