"""LCPAQ's figures: every layer, the policy that was selected, a colour per bit width."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from deploy.formats.plots.figures import Bars, Points
from deploy.lcpaq.plots import Drawn, drawn, plots, write_image, write_page
from deploy.lcpaq.records import RefinedPolicy, RefineRecord, SensitivityRecord, SolveRecord

SENSITIVITY = SensitivityRecord("k", "hessian", 64, 1.0, {"stem": {4: 0.5, 8: 0.0}, "b1/0/expand": {4: 0.2, 8: 0.1}})
SOLVED = SolveRecord("k", {}, {}, {}, 0.1, {"stem": 8, "b1/0/expand": 4}, "b")
SCORED = (
    RefinedPolicy("program", "a", {"size_bits": 8000.0}, 50.0),
    RefinedPolicy("frontier", "b", {"size_bits": 7000.0}, 60.0),
)
REFINED = RefineRecord("k", "top-1", 512, SCORED, "b", "frontier")


def refined() -> Drawn:
    return drawn(SENSITIVITY, SOLVED, REFINED)


def test_what_is_drawn_is_what_the_records_hold() -> None:
    d = refined()
    assert d.layers == ("stem", "b1/0/expand") and d.bits == (8, 4)
    assert d.perturbation == {4: (0.5, 0.2), 8: (0.0, 0.1)}
    assert d.scored == ((0.875, 60.0, "frontier"), (1.0, 50.0, "program"))


def test_a_bit_width_has_one_colour_and_a_perturbation_of_none_a_place() -> None:
    sensitivity, bits, scored = plots(refined())
    of_eight = [m for m in sensitivity.marks if isinstance(m, Points) and m.colour == "8 bits"]
    (bars,) = bits.marks
    assert isinstance(bars, Bars) and bars.colours == ("8 bits", "4 bits") and len(of_eight) == 1
    assert 0 < of_eight[0].y[0] < 0.1 and of_eight[0].tips[0] == "stem at 8 bits: 0"
    selected = scored.marks[-1]
    assert isinstance(selected, Points) and (selected.x, selected.y) == ((0.875,), (60.0,))
    assert (selected.colour, selected.shape) == ("selected", "ring")


def test_before_refinement_there_are_two_plots() -> None:
    assert [plot.title for plot in plots(drawn(SENSITIVITY, SOLVED, None))] == [
        "sensitivity by layer",
        "weight bits by layer",
    ]


def test_the_page_and_the_file(tmp_path: Path) -> None:
    write_page(tmp_path / "lcpaq.html", refined())
    write_image(tmp_path / "lcpaq.svg", refined())
    page = (tmp_path / "lcpaq.html").read_text(encoding="utf8")
    assert "http" not in page and len(page) < 30_000
    for root in (ET.fromstring(page), ET.parse(tmp_path / "lcpaq.svg").getroot()):  # noqa: S314 (we wrote both)
        said = "".join(root.itertext())
        for words in ("sensitivity by layer", "b1/0/expand", "scored policies", "frontier", "top-1, %"):
            assert words in said
