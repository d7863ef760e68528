"""The comparison as GitHub Markdown, as a page and as JUnit XML: the same numbers, whatever the names."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from deploy.formats.verdicts import check_paths, html, junit, markdown, write
from deploy.regression.regress import Outcome
from deploy.regression.report import report_of
from hil.errors import UsageError
from hil.regression import Comparison
from tests.deploy.cli.test_results_command import CONDITIONS

HOSTILE = "a|b_*c*_<d>&`e`\\[f](g)~h~#.tflite"


def compared(ratio: float, p_value: float = 0.5) -> Comparison:
    return Comparison(5000.0, 5000 * ratio, ratio, (ratio - 0.01, ratio + 0.01), p_value, 0.05, 4)


SLOWER = Outcome("slow", "interleaved", compared(1.2, 1e-9), compared(1.19, 1e-9), flags=("throttled",))
OUTCOMES = (
    Outcome(HOSTILE, "stored", compared(1.0), taken="2026-01-01 12:00"),
    SLOWER,
    Outcome("bad", "stored", failure="bad: outputs\n\x00differ"),
    Outcome("new", gap="no baseline; --update makes one"),
)
NOW = replace(CONDITIONS, soc="i.MX8M | Plus")
REPORT = report_of("bench", NOW, OUTCOMES)
TITLE = "Latency on bench against the baseline: 4 models, 1 slower, 1 failing, 1 not compared"
CELLS = [
    [HOSTILE, "ok", "5.000", "5.000", "1.000", "0.990 - 1.010", "1.050"],
    ["slow", "SLOWER", "5.000", "5.950", "1.190", "1.180 - 1.200", "1.050"],
    ["bad", "FAILS", "", "", "", "", ""],
    ["new", "not compared", "", "", "", "", ""],
]
SAID = "5.950 ms against 5.000 ms, ratio 1.190 [1.180, 1.200], p 1e-09; allowed 1.050; throttled"


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 (we wrote it)


def cells(table: ET.Element) -> list[list[str]]:
    rows = (["".join(cell.itertext()) for cell in row.iter("td")] for row in table.iter("tr"))
    return [row for row in rows if row]


def test_markdown_is_a_table_that_github_shows() -> None:
    text = markdown(REPORT)
    assert all(len(line) - line.count("\\|") > 0 for line in text.splitlines() if line.startswith("|"))
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    body = parsed(f"<body>{rendered}</body>")
    assert [h.text for h in body.iter("h3")] == [TITLE]
    table, conditions = body.iter("table")
    assert cells(table) == CELLS
    assert ["soc", "i.MX8M | Plus"] in cells(conditions)
    items = ["".join(item.itertext()) for item in body.iter("li")]
    assert items[0].startswith("slow (interleaved): 6.000 ms") and items[0].endswith(f"measured again: {SAID}")
    assert items[1] == "bad: bad: outputs differ"
    assert items[2:] == ["new: no baseline; --update makes one"]


def test_a_page_has_table_and_figure() -> None:
    text = html(REPORT)
    root = parsed(text.removeprefix("<!DOCTYPE html>\n"))
    table, conditions = root.iter("table")
    assert cells(table) == CELLS and ["soc", "i.MX8M | Plus"] in cells(conditions)
    screen, phone = (svg for svg in root.iter("svg") if svg.get("role") == "img")
    for figure in (screen, phone):
        said = "".join(figure.itertext())
        assert "slower" in said and "allowed" in said and "5.950 ms against 5.000 ms" in said
    assert "http" not in text


def test_a_page_without_anything_compared() -> None:
    assert "<svg" not in html(report_of("bench", NOW, OUTCOMES[3:]))


def test_junit_has_a_case_for_each_model() -> None:
    suite = parsed(junit(REPORT))
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    good, slow, bad, new = suite.iter("testcase")
    assert good.get("name") == HOSTILE and len(good) == 0 and float(good.get("time", "")) == pytest.approx(0.005)
    assert [child.tag for case in (slow, bad, new) for child in case] == ["failure", "error", "skipped"]
    assert str(slow[0].get("message")).endswith(SAID) and bad[0].get("message") == "bad: bad: outputs  differ"
    assert bad.get("time") is None
    assert {"kernel": "6.6.36"}.items() <= {p.get("name"): p.get("value") for p in suite.iter("property")}.items()


def test_all_well() -> None:
    report = report_of("bench", NOW, OUTCOMES[:1])
    assert report.title.endswith(": 1 model, none slower") and list(report.remarks()) == []


def test_files(tmp_path: Path) -> None:
    write(REPORT, tmp_path / "new" / "a.md", tmp_path / "a.xml")
    assert (tmp_path / "new" / "a.md").read_text(encoding="utf8") == markdown(REPORT)
    assert (tmp_path / "a.xml").read_text(encoding="utf8") == junit(REPORT)
    write(REPORT, None, None)
    with pytest.raises(UsageError, match=r"--report \S+a.pdf: give a file that ends in .md or .html"):
        check_paths(tmp_path / "a.pdf", None)
    with pytest.raises(UsageError, match=r"--junit \S+a.json: give a file that ends in .xml"):
        check_paths(None, tmp_path / "a.json")
