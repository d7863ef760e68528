"""The kit's pages in Chromium: nothing is fetched or complained of, nothing scrolls sideways, pointing names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.formats.plots.colours import COLOURS
from tests.deploy.chromium import PHONE, SCREEN, ask, in_chromium
from tests.deploy.report.drawn_pages import KINDS, drawn_pages

LOOKING = """
  const shown = [...document.querySelectorAll("svg.plot")].filter(node => node.getClientRects().length);
  const scale = matrix => Math.hypot(matrix.a, matrix.b);
  const small = node => parseFloat(getComputedStyle(node).fontSize) * scale(node.getScreenCTM());
  const texts = shown.flatMap(node => [...node.querySelectorAll("text")].filter(text => text.textContent));
  return {
    width: innerWidth,
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    fetched: performance.getEntriesByType("resource").map(entry => entry.name),
    figures: shown.length,
    unnamed: shown.filter(node => !node.getAttribute("aria-label")).length,
    letters: Math.min(...texts.map(small)),
    pictures: [...document.images].map(image => image.complete && image.naturalWidth > 0 && image.alt !== ""),
    paper: getComputedStyle(document.body).backgroundColor,
  };
"""
EXPLORING = """
  const box = document.getElementById("exploration"), svg = box.querySelector("svg"), said = {};
  said.points = svg.querySelectorAll("circle").length;
  const [, byY] = box.querySelectorAll("select");
  byY.value = "size";
  byY.dispatchEvent(new Event("change"));
  said.label = svg.getAttribute("aria-label");
  const at = svg.querySelector("circle").getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: at.x + 1, clientY: at.y + 1 }));
  said.tip = document.getElementById("tip").textContent;
  said.static = document.getElementById("front").getClientRects().length;
  return said;
"""
POINTING = """
  const plot = document.querySelector("svg.plot"), tip = document.getElementById("tip");
  const mark = plot.querySelector("polygon.f-selected").getBoundingClientRect();
  const x = mark.left + mark.width / 2, y = mark.top + mark.height / 2;  // others may be near: the nearest is named
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y }));
  return { hidden: tip.hidden, text: tip.textContent };
"""
LEAST = 7.0  # pixels of a letter in a figure
FIGURES = {"segmentation": 9, "classification": 4, "killed": 5, "several": 2, "agreement": 1, "regression": 1}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return drawn_pages(tmp_path_factory)


@in_chromium
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "dark"), [(SCREEN, False), (PHONE, True)])
def test_a_page_opens(pages: Mapping[str, str], tmp_path: Path, kind: str, width: int, dark: bool) -> None:
    answer = ask(pages[kind], LOOKING, tmp_path, width=width, dark=dark)
    said, paper = answer.said, COLOURS["paper"][dark].lstrip("#")
    assert answer.complaints == () and said["fetched"] == []
    assert said["width"] == width and not said["wide"]
    assert said["figures"] >= FIGURES[kind] and said["unnamed"] == 0 and said["letters"] >= LEAST, said
    assert all(said["pictures"]) and bool(said["pictures"]) == (kind in ("segmentation", "classification"))
    assert said["paper"] == "rgb({}, {}, {})".format(*bytes.fromhex(paper))


@in_chromium
@pytest.mark.parametrize("width", [SCREEN, PHONE])
def test_the_front_by_any_two_quantities(pages: Mapping[str, str], tmp_path: Path, width: int) -> None:
    said = ask(pages["segmentation"], EXPLORING, tmp_path, width=width).said
    assert said["points"] > 0 and said["static"] == 0
    assert said["label"].startswith("weights, kB against predicted latency, ms: ")
    assert "b1_k" in said["tip"] and "predicted latency, ms " in said["tip"]


@in_chromium
@pytest.mark.parametrize(("kind", "score"), [("segmentation", "mIoU "), ("classification", "top-1 47.50 %")])
def test_pointing_names_a_subnet(pages: Mapping[str, str], tmp_path: Path, kind: str, score: str) -> None:
    said = ask(pages[kind], POINTING, tmp_path).said
    assert not said["hidden"] and said["text"].startswith("fast: b1_k3e") and score in said["text"]
