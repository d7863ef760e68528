"""Pages of every kind that the kit draws, by name, as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from deploy.formats.journal import Journal
from deploy.formats.verdicts import html
from deploy.latency.scatter import write_page
from deploy.report.gallery import GalleryRecord, ShownImage
from deploy.report.page import write_report
from deploy.report.several import write_several
from deploy.run.records import Summary
from deploy.ship.evaluation import BOARD, ImageScore
from tests.deploy.regression.test_regression_report import REPORT
from tests.deploy.run_records import agreement, search, summary
from tests.deploy.tiny_experiment import finished_run

CLASSES = ("arrow", "disc & ring", "star")
PREDICTED: Mapping[str, Sequence[int]] = {
    "teacher": (0, 1, 2, 0, 0, 2),
    "teacher_plus": (0, 1, 2, 0, 1, 2),
    "fast": (0, 1, 2, 2, 2, 2),
}
LABELS = (0, 1, 2, 0, 1, 2)
"""Of six images; `PREDICTED`: by model."""
KINDS = ("segmentation", "classification", "killed", "several", "agreement", "regression")


def classification_run(folder: Path) -> Path:
    """The records and pictures of a classification run that was never run; its folder."""
    folder.mkdir(parents=True)
    for record in (summary(task="classification"), agreement(), search()):
        record.write(folder / record.FILE)
    for name, predicted in PREDICTED.items():
        cells = [((label, found, 1),) for label, found in zip(LABELS, predicted, strict=True)]
        journal = Journal(folder / "evaluations" / f"{name}.jsonl", ImageScore, "a")
        journal.append(*(ImageScore(index, "digest", {BOARD: cell}) for index, cell in enumerate(cells)))
    whys = {3: "wrong", 4: "wrong", 0: "drawn"}
    images = tuple(
        ShownImage(index, f"{index}.png", why, 1.0, LABELS[index], {m: found[index] for m, found in PREDICTED.items()})
        for index, why in whys.items()
    )
    GalleryRecord("key", False, CLASSES, tuple(PREDICTED), "teacher_plus", "fast", images).write(
        folder / GalleryRecord.FILE
    )
    for one in images:
        Image.new("RGB", (32, 32), (40 * one.index, 90, 160)).save(folder / "gallery" / one.picture("image"))
    return folder


def drawn_pages(factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """By KINDS."""
    folder, run = factory.mktemp("pages"), finished_run(factory)
    dense, killed = run.copy(folder / "finished"), run.copy(folder / "killed")
    (killed / Summary.FILE).unlink()
    write_several([dense, run.copy(folder / "again")], folder / "several.html")
    write_page(folder / "agreement.html", agreement())
    paths = {
        "segmentation": write_report(dense),
        "classification": write_report(classification_run(folder / "classification")),
        "killed": write_report(killed),
        "several": folder / "several.html",
        "agreement": folder / "agreement.html",
    }
    return {**{kind: path.read_text(encoding="utf8") for kind, path in paths.items()}, "regression": html(REPORT)}
