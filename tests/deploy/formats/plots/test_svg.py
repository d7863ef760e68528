"""Plots as SVG: well-formed, the same bytes again, everything within the picture, readable on either paper."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from deploy.formats.plots.axes import wrapped
from deploy.formats.plots.colours import COLOURS
from deploy.formats.plots.figures import Axis, Bars, Line, Plot, Points, check_image
from deploy.formats.plots.labels import PlacedLabel, place
from deploy.formats.plots.svg import MOST_POINTS, draw, inline, write_svg
from hil.errors import UsageError

HOSTILE = "a <b> & \"c\" 'd'"
POINTS = Points(
    (1.0, 2.0, 3.0),
    (10.0, 20.0, 15.0),
    "selected",
    HOSTILE,
    tips=("one", HOSTILE, "three"),
    labels=("first", "", "last"),
    y_intervals=((9.0, 11.0), (19.0, 26.0), (15.0, 15.0)),
)
PLOT = Plot(
    HOSTILE,
    Axis("predicted, ms"),
    Axis("measured, ms"),
    (Line((1.0, 3.0), (10.0, 30.0), name="line", dotted=True), POINTS),
    warning="REPLAY: no board",
    notes=("1  +25.0 %  b1_k5e6_w8",),
)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 (we wrote it)


def test_a_plot_says_what_it_was_given():
    svg = parsed(inline(PLOT))
    said = "".join(svg.itertext())
    for words in (HOSTILE, "predicted, ms", "measured, ms", "REPLAY: no board", "+25.0 %", "line", "first", "last"):
        assert words in said
    assert [t.text for t in svg.iter("title")] == ["one", HOSTILE, "three"]
    assert svg.get("aria-label") == HOSTILE
    assert len([p for p in svg.iter("path") if "s-selected" in p.get("class", "")]) == 3  # error bars


def test_everything_lies_within_the_picture():
    drawing = draw(PLOT, 500)
    for mark in parsed(f"<g>{drawing.elements}</g>").iter("circle"):
        assert 0 <= float(mark.get("cx")) <= 500 and 0 <= float(mark.get("cy")) <= drawing.height
    ys = [float(t.get("y")) for t in parsed(f"<g>{drawing.elements}</g>").iter("text") if t.get("y")]
    assert max(ys) <= drawing.height - 3


def test_a_file_is_svg_and_has_the_same_bytes_again(tmp_path):
    path = tmp_path / "new" / "a.svg"
    write_svg(path, [PLOT, PLOT, PLOT], columns=2, width=300)
    root = parsed(path.read_text(encoding="utf8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("width") == "628"
    content = path.read_bytes()
    write_svg(path, [PLOT, PLOT, PLOT], columns=2, width=300)
    assert path.read_bytes() == content and [p.name for p in path.parent.iterdir()] == ["a.svg"]


@pytest.mark.parametrize("name", ["a.png", "a.pdf", "a"])
def test_another_format_is_refused_before_anything_is_measured(name, tmp_path):
    with pytest.raises(UsageError, match=rf"--plot \S*{name}: figures are written as SVG; .* \.svg"):
        check_image(tmp_path / name)


def test_logarithmic_axes_leave_out_what_has_no_place_there():
    points = Points((0.0, 1.0, 10.0, float("nan")), (1.0, 1.0, 0.0, 1.0))
    svg = inline(Plot("", Axis("x", log=True), Axis("y", log=True), (points,)))
    assert len(list(parsed(svg).iter("circle"))) == 1 and "log scale" in svg


def test_bars_stand_on_zero_and_name_their_places():
    bars = Bars((8.0, 4.0), ("8 bits", "4 bits"), ("stem: 8 bits", "b1/0/expand: 4 bits"))
    svg = parsed(inline(Plot("bits", Axis("layer", names=("stem", "b1/0/expand")), Axis("bits", zero=True), (bars,))))
    first, second = svg.iter("rect")
    assert float(first.get("height")) == pytest.approx(2 * float(second.get("height")), abs=0.2)
    assert first.get("fill") == COLOURS["8 bits"][0] != second.get("fill")
    assert {"stem", "b1/0/expand"} <= {t.text for t in svg.iter("text")}


def test_an_empty_plot_is_a_pair_of_axes():
    assert "nothing" in inline(Plot("nothing", Axis("x"), Axis("y"), (Points((), ()), Line((), ()))))


def test_a_diagonal_runs_from_corner_to_corner_of_one_range():
    plot = Plot("", Axis("x"), Axis("y"), (Points((1.0, 2.0), (5.0, 9.0)),), diagonal="x = y")
    svg = parsed(inline(plot))
    texts = [t.text for t in svg.iter("text")]
    assert "x = y" in texts and all(texts.count(tick) == 2 for tick in ("2", "4", "6", "8"))


def test_many_points_are_thinned_to_what_the_eye_can_part():
    values = tuple(i / 1e4 for i in range(40 * MOST_POINTS))
    svg = inline(Plot("", Axis("x"), Axis("y"), (Points(values, values), Line(values, values))))
    assert 100 < svg.count("<circle") < 400 and len(svg) < 60_000


@pytest.mark.parametrize("paper", [0, 1])
def test_colours_can_be_read_on_their_paper(paper):
    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    background = luminance(COLOURS["paper"][paper])
    for name, pair in COLOURS.items():
        low, high = sorted((background, luminance(pair[paper])))
        assert name in ("paper", "grid") or (high + 0.05) / (low + 0.05) >= 4.5, name


def test_labels_cover_neither_each_other_nor_points():
    wanted = [PlacedLabel(f"label {i}", 100 + 4 * i, 100, 4, "ink") for i in range(4)]
    marks = [(96.0 + 4 * i, 96.0, 104.0 + 4 * i, 104.0) for i in range(5)]
    at = place(wanted, [(40.0, 12.0)] * 4, (0, 0, 400, 200), marks)
    boxes = [(x, y - 0.8 * 12, x + 40, y + 0.2 * 12) for x, y in at]
    for a, b in itertools.combinations([*boxes, *marks], 2):
        if not (a in boxes or b in boxes):
            continue
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_long_lines_break_between_blocks():
    lines = wrapped("1  +19.1 %  " + "+".join(f"b{i}_k3e6-k3e6_w8" for i in range(1, 7)), 300, 12)
    assert len(lines) > 2 and all(line.endswith("+") for line in lines[:-1])
    assert re.sub(r"\s", "", "".join(lines)).count("_w8") == 6


def test_a_long_label_is_no_longer_than_its_axis():
    label = "loss of a validation split that has a very long name, mean of 7 steps"
    svg = parsed(inline(Plot("", Axis("x"), Axis(label), (POINTS,), height=150)))
    (text,) = (t for t in svg.iter("text") if t.text == label)
    assert 0.56 * len(label) * float(text.get("font-size")) <= 151


def test_names_far_apart_keep_their_size():
    def size(*names: str) -> float:
        points = Points(tuple(map(float, range(len(names)))), (1.0,) * len(names))
        svg = parsed(inline(Plot("", Axis("", names=names), Axis("y"), (points,)), 300))
        return next(
            float(g.get("font-size")) for g in svg.iter("g") if [t.text for t in g] == list(filter(None, names))
        )

    assert size(*["a"] * 60) < size(*(["a", *[""] * 9] * 6)) == 11


def test_points_that_lead_somewhere_are_links_and_no_picture():
    linked = Points((1.0, 2.0), (1.0, 2.0), labels=("1", "2"), links=("#one", "#two"))
    svg = parsed(inline(Plot("", Axis("x"), Axis("y"), (linked,))))
    assert [(a.get("href"), a.get("aria-label")) for a in svg.iter("a")] == [("#one", "1"), ("#two", "2")]
    assert svg.get("role") == "group" and parsed(inline(PLOT)).get("role") == "img"


def test_bars_with_a_name_are_in_the_legend():
    bars = Bars((8.0,), ("8 bits",), name="weights")
    svg = parsed(inline(Plot("", Axis("", names=("stem",)), Axis("bits"), (bars,))))
    assert "weights" in [t.text for t in svg.iter("text")] and len(list(svg.iter("polygon"))) == 1
