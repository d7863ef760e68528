"""Several runs on one page, a run that was killed half-way, and one that is watched until it ends."""

from __future__ import annotations

import json
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.cli import main, report
from deploy.report.page import write_report
from deploy.run.records import AgreementRecord, SearchRecord, Summary
from tests.deploy.tiny_experiment import finished_run


def test_what_differs_between_runs_is_in_one_table(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = finished_run(tmp_path_factory)
    one, two = finished.copy(tmp_path / "a"), finished.copy(tmp_path / "b")
    settings = json.loads((two / "experiment.json").read_text())
    settings["retrain"]["steps"] = 77
    (two / "experiment.json").write_text(json.dumps(settings))
    page = tmp_path / "both.html"
    assert main(["report", str(one), str(two), "--out", str(page)]) == 0
    assert f"report: {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf8")
    ET.fromstring(text)  # noqa: S314 (we wrote it)
    assert "<td>retrain.steps</td><td>30</td><td>77</td>" in text and text.count("<td>retrain.") == 1
    assert text.count("<td>a/tiny</td>") == text.count("<td>b/tiny</td>") == 3
    (two / "experiment.json").unlink()
    assert main(["report", str(one), str(two), "--out", str(page)]) == 0
    assert "Not known of b/tiny" in page.read_text(encoding="utf8")
    assert main(["report", *[str(one)] * 9, "--out", str(page)]) == 2
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert "no run there" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [Summary.FILE, SearchRecord.FILE, AgreementRecord.FILE])
def test_a_run_that_is_not_finished_says_what_is_missing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, missing: str
) -> None:
    run = finished_run(tmp_path_factory).copy(tmp_path)
    (run / missing).unlink()
    text = write_report(run, refresh_s=5.0).read_text(encoding="utf8")
    ET.fromstring(text)  # noqa: S314 (we wrote it)
    assert "This run is not finished" in text and '<meta http-equiv="refresh" content="5" />' in text
    assert ("the agreement missing" in text) == (missing == AgreementRecord.FILE)
    assert "<td>teacher</td><td>done</td>" in text and "teacher: 30 steps" in text


def test_a_run_is_watched_until_it_ends(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path_factory).copy(tmp_path)
    summary = (run / Summary.FILE).read_bytes()
    (run / Summary.FILE).unlink()
    monkeypatch.setattr(report, "SECONDS", 0.05)
    codes: list[int] = []
    watching = threading.Thread(target=lambda: codes.append(main(["report", str(run), "--watch"])))
    watching.start()
    page = run / "report.html"
    while "This run is not finished" not in page.read_text(encoding="utf8"):
        time.sleep(0.02)
    (run / Summary.FILE).write_bytes(summary)
    watching.join(60)
    assert codes == [0] and "refresh" not in page.read_text(encoding="utf8").split("<style>")[0]
