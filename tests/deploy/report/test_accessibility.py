"""axe-core over the kit's pages, on light paper and on dark, on a screen and on a phone: no finding of weight.

What stands within a figure axe does not weigh: tests/deploy/formats/plots/test_svg.py has its colours' contrast.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.deploy.chromium import PHONE, SCREEN, ask, in_chromium
from tests.deploy.report.drawn_pages import KINDS, drawn_pages

AXE = importlib.util.find_spec("axe_core_python")
CHECKING = """
  document.querySelectorAll("details").forEach(node => { node.open = true; });
  const found = await axe.run(document);
  const where = rule => rule.nodes.slice(0, 3).map(node => node.html.slice(0, 200) + " " + node.failureSummary);
  return {
    checked: found.passes.map(rule => rule.id),
    violations: found.violations.map(rule => [rule.impact, rule.id, where(rule)]),
  };
"""
CHECKED = {"color-contrast", "html-has-lang", "document-title", "heading-order", "landmark-one-main", "region"}

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(AXE is None, reason="needs axe-core-python, of the extra `dev`"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return drawn_pages(tmp_path_factory)


@pytest.fixture(scope="module")
def axe() -> str:
    assert AXE is not None and AXE.origin is not None
    return (Path(AXE.origin).parent / "axe.min.js").read_text(encoding="utf8").replace("</script", "<\\/script")


@in_chromium
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("look", [(SCREEN, False), (PHONE, True)], ids=["screen", "dark phone"])
def test_a_page_can_be_read_by_everybody(
    pages: Mapping[str, str], axe: str, tmp_path: Path, kind: str, look: tuple[int, bool]
) -> None:
    width, dark = look
    said = ask(pages[kind], CHECKING, tmp_path, width=width, dark=dark, library=axe).said
    assert said["violations"] == [] and CHECKED - set(said["checked"]) == set(), said


@in_chromium
@pytest.mark.parametrize(
    ("worse", "rule"),
    [
        ((r"color: var\(--muted\)", "color: var(--grid)"), "color-contrast"),
        ((r' alt="', ' data-alt="'), "image-alt"),
        ((r' lang="en"', ""), "html-has-lang"),
        ((r"</?label>", ""), "select-name"),
    ],
)
def test_what_is_wrong_is_found(
    pages: Mapping[str, str], axe: str, tmp_path: Path, worse: tuple[str, str], rule: str
) -> None:
    said = ask(re.sub(*worse, pages["segmentation"]), CHECKING, tmp_path, library=axe).said
    assert rule in [found[1] for found in said["violations"]]
