"""A run of an earlier hilnas, which kept less, still has its page."""

from __future__ import annotations

import json
import shutil
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.report.gallery import FOLDER, GalleryRecord
from deploy.report.material import EXPERIMENT, STORE
from deploy.run.records import FinalRecord, ModelRecord, Summary
from tests.deploy.tiny_experiment import Finished, finished_run

ADDED_LATER = (FOLDER, GalleryRecord.FILE, "evaluations", EXPERIMENT, "data.json", "compare")
OPTIONAL = {f.name for f in fields(ModelRecord) if f.default is not MISSING or f.default_factory is not MISSING}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


def without(raw: object) -> object:
    """A record whose models have nothing that came with later versions."""
    if isinstance(raw, dict):
        model = {"subnet", "size_bits"} <= raw.keys()
        return {name: without(value) for name, value in raw.items() if not (model and name in OPTIONAL)}
    return [without(value) for value in raw] if isinstance(raw, list) else raw


@pytest.mark.parametrize("store", [True, False])
def test_it_draws(finished: Finished, tmp_path: Path, store: bool, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished.copy(tmp_path)
    for name in ADDED_LATER:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in run.glob("*.training.csv"):
        path.unlink()
    if not store:
        (run / STORE).unlink()
    for name in (Summary.FILE, FinalRecord.FILE):
        (run / name).write_text(json.dumps(without(json.loads((run / name).read_text()))))
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0, capsys.readouterr().err
    page = (run / "report.html").read_text(encoding="utf8")
    assert "Ship <b>" in page and "<h2>Models" in page and "What they see" not in page
    assert "Traceback" not in capsys.readouterr().err
