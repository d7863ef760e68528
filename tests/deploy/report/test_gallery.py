"""The pictures of a run: which images, what is drawn of them, and that a page holds them."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.cli import main
from deploy.formats.class_colours import VERDICTS, colour, palette
from deploy.report.gallery import (
    DIFFERENCE,
    WORST,
    GalleryRecord,
    chosen_images,
    compared,
    make_gallery,
    predictions,
)  # fmt: skip
from deploy.report.page import write_report
from deploy.run.records import Summary
from nas.data import open_data
from tests.deploy.tiny_experiment import finished_run

SIZE = (64, 96)


@pytest.fixture
def run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory).copy(tmp_path / "runs")


def test_a_run_has_pictures_of_images_that_differ_and_of_some_drawn(run: Path) -> None:
    record = GalleryRecord.read(run / GalleryRecord.FILE)
    data = open_data("scenes", "val", SIZE, count=4)
    assert record.models == ("teacher", "teacher_plus", "fast")
    assert (record.reference, record.shown) == ("teacher_plus", "fast")
    assert [image.why for image in record.images] == ["differs"] * WORST["segmentation"], "there are no more than these"
    shares = [image.differing for image in record.images if image.why == "differs"]
    assert shares == sorted(shares, reverse=True)
    paths = {name: run / "models" / f"{name}.tflite" for name in record.models}
    for image in record.images:
        found = {name: dict(predictions(path, data, [image.index], name))[image.index] for name, path in paths.items()}
        assert image.differing == np.mean(found["teacher_plus"] != found["fast"])
        for name, classes in found.items():
            with Image.open(run / "gallery" / image.picture(name)) as picture:
                assert np.array_equal(np.array(picture), classes)
        with Image.open(run / "gallery" / image.picture(DIFFERENCE)) as picture:
            marked = np.array(picture)
        assert np.array_equal(marked > 0, found["teacher_plus"] != found["fast"])
        assert np.array_equal(marked == 1, (marked > 0) & (found["fast"] == data[image.index].label))


def test_what_is_wrong_comes_first_and_what_is_right_is_only_drawn() -> None:
    differing = {0: 0.0, 1: 0.0, 2: 1.0, 3: 1.0, 4: 0.0, 5: 0.0, 6: 0.0}
    found = chosen_images(differing, {1, 2}, most=3, seed=0)
    assert list(found.items())[:3] == [(2, "wrong"), (1, "wrong"), (3, "differs")]
    assert list(found.values())[3:] == ["drawn"] * 2 and set(found) - {1, 2, 3} < {0, 4, 5, 6}
    assert found == chosen_images(differing, {1, 2}, most=3, seed=0)
    assert next(iter(chosen_images(differing, {1, 2}, most=1, seed=0))) == 2
    assert set(chosen_images(dict.fromkeys(range(9), 0.0), set(), most=4, seed=0).values()) == {"drawn"}


def test_they_are_made_once(run: Path) -> None:
    summary, data = Summary.read(run / Summary.FILE), open_data("scenes", "val", SIZE, count=4)
    files = {model.name: run / "models" / f"{model.name}.tflite" for model in summary.all_models}
    before = {path: path.stat().st_mtime_ns for path in (run / "gallery").iterdir()}
    assert list(make_gallery(run, data, files, ("teacher_plus", "fast"), 0)) == []
    assert {path: path.stat().st_mtime_ns for path in (run / "gallery").iterdir()} == before
    assert list(make_gallery(run, data, files, ("teacher", "fast"), 0))
    assert GalleryRecord.read(run / GalleryRecord.FILE).reference == "teacher"


def test_the_page_holds_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf8")
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/(jpeg|png);base64,([^"]+)"', page)
    record = GalleryRecord.read(run / GalleryRecord.FILE)
    assert len(pictures) == len(record.images) * (3 + len(record.models))
    for _, kind, content in pictures:
        with Image.open(BytesIO(base64.b64decode(content))) as picture:
            assert picture.format == kind.upper()
    (run / "gallery" / record.images[0].picture("label")).unlink()
    assert "is missing" in write_report(run).read_text(encoding="utf8")


def test_which_of_two_is_right() -> None:
    label, reference, shown = (np.array(row) for row in ([0, 1, 2, 3, 255], [0, 1, 0, 0, 1], [0, 0, 2, 1, 2]))
    assert compared(label, reference, shown).tolist() == [0, 2, 1, 3, 3]
    assert len(VERDICTS) == 12


def test_classes_have_colours_of_their_own() -> None:
    colours = [colour(label) for label in range(40)]
    assert len(set(colours)) == 40 and all(0 <= value < 256 for one in colours for value in one)
    assert palette(2)[:6] == [*colours[0], *colours[1]] and palette(2)[6:9] == [0, 0, 0] and len(palette(2)) == 768
