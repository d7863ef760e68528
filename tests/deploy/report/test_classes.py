"""Class by class: what is right, which model is better where, and what a classifier takes for what."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.report.page import write_report
from tests.deploy.report.drawn_pages import classification_run


@pytest.fixture
def page(tmp_path: Path) -> str:
    return write_report(classification_run(tmp_path / "run")).read_text(encoding="utf8")


def rows(page: str, kind: str) -> list[list[str]]:
    """The cells of the first table of that class."""
    (table, *_) = [t for t in ET.fromstring(page).iter("table") if t.get("class") == kind]  # noqa: S314 (we wrote it)
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


def test_the_confusions_of_what_is_bundled_come_first(page: str) -> None:
    assert rows(page, "confusions") == [
        ["label", "arrow", "disc & ring", "star"],
        ["arrow", "1", "", "1"],
        ["disc & ring", "", "1", "1"],
        ["star", "", "", "2"],
    ]
    shown = re.findall(r"(\w+): labels in rows, predictions in columns", page)
    assert shown == ["fast", "teacher", "teacher_plus"]
    assert page.count('class="wrong" style="--share: 0.50"') == 3, "two of fast, one of the teacher"


def test_each_model_is_compared_with_the_teacher_trained_on(page: str) -> None:
    assert rows(page, "classes") == [
        ["class", "images", "teacher_plus, %", "teacher", "fast"],
        ["arrow", "2", "100.0", "0", "-50.0"],
        ["disc & ring", "2", "100.0", "-50.0", "-50.0"],
        ["star", "2", "100.0", "0", "0"],
    ]
    assert '<td class="wrong">-50.0</td>' in page


def test_the_worst_images_are_cards_that_say_who_is_wrong(page: str) -> None:
    cards = re.findall(r"<figure><img alt=\"([^\"]+)\" [^>]+/><figcaption>(.*?)</figcaption>", page)
    assert [alt for alt, _ in cards] == [
        "3.png, labelled arrow",
        "4.png, labelled disc &amp; ring",
        "0.png, labelled arrow",
    ]
    assert '<span>arrow: teacher, teacher_plus</span><span class="wrong">star: fast</span>' in cards[0][1]
    assert "<small>3.png: fast is wrong</small>" in cards[0][1] and "drawn at random" in cards[2][1]


def test_a_run_whose_board_gives_no_outputs_has_no_such_section(tmp_path: Path) -> None:
    run = classification_run(tmp_path / "run")
    for path in (run / "evaluations").iterdir():
        path.unlink()
    assert "<h2>Classes</h2>" not in write_report(run).read_text(encoding="utf8")
