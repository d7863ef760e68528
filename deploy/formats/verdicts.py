"""Verdicts for people and for CI, in one table: GitHub Markdown, a page, JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from deploy.formats.files import write_atomically
from deploy.formats.plots.figures import Plot
from deploy.formats.plots.pages import page, scrolled, wide
from deploy.formats.printable import printable
from hil.errors import UsageError

Status = Literal["ok", "regressed", "failed", "incomparable"]
JUNIT: Mapping[Status, tuple[str, str]] = {
    "regressed": ("failure", "failures"),
    "failed": ("error", "errors"),
    "incomparable": ("skipped", "skipped"),
}
"""Of what is not ok: the element, and the attribute that counts them."""
FIGURE_WIDTH = 900.0


@dataclass(frozen=True)
class CaseVerdict:
    """One row.

    Attributes:
        cells: beneath the report's head.
        text: what there is to say beyond the row.
        remark: whether `text` is said beneath the table.
        seconds: of what was timed.
    """

    name: str
    cells: tuple[str, ...]
    text: str
    status: Status
    remark: bool = False
    seconds: float | None = None


@dataclass(frozen=True)
class VerdictReport:
    """Verdicts reached on one board.

    Attributes:
        command: "regress"; `board`: its name.
        head: the columns' names, of which `left` are text and the others are numbers.
        facts: the conditions by name.
        figure: above the table of a page.
    """

    command: str
    board: str
    title: str
    head: tuple[str, ...]
    left: int
    verdicts: tuple[CaseVerdict, ...]
    facts: Mapping[str, object]
    figure: Plot | None = None

    def remarks(self) -> Iterator[str]:
        yield from (verdict.text for verdict in self.verdicts if verdict.remark)


def markdown(report: VerdictReport) -> str:
    """GitHub Markdown, for a comment on a pull request."""
    aligned = ["---"] * report.left + ["--:"] * (len(report.head) - report.left)
    table = [report.head, aligned, *([_plain(cell) for cell in v.cells] for v in report.verdicts)]
    lines = [f"### {_plain(report.title)}", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    lines += [f"- {_plain(remark)}" for remark in report.remarks()]
    lines += ["", "<details><summary>Conditions</summary>", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_plain(str(value))} |" for name, value in report.facts.items()]
    return "\n".join([*lines, "", "</details>", ""])


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, within a line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(printable(text).split()))


def html(report: VerdictReport) -> str:
    """A self-contained page."""
    figure = wide(report.figure, FIGURE_WIDTH) if report.figure else ""
    head = "".join(f"<th>{cell}</th>" for cell in report.head)
    rows = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in v.cells)}</tr>" for v in report.verdicts)
    remarks = "".join(f"<p>{_escaped(remark)}</p>" for remark in report.remarks())
    facts = "".join(f"<tr><td>{name}</td><td>{_escaped(str(value))}</td></tr>" for name, value in report.facts.items())
    verdicts = scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return page(
        f"hilnas {report.command}",
        f"<h1>{_escaped(report.title)}</h1>{figure}{verdicts}{remarks}"
        f"<h2>Conditions</h2>{scrolled(f'<table><tbody>{facts}</tbody></table>')}",
    )


def _escaped(text: str) -> str:
    return escape(printable(text))


def junit(report: VerdictReport) -> str:
    """JUnit XML: a test case per verdict."""
    suite = ET.Element("testsuite", name=f"hilnas {report.command} {report.board}", tests=str(len(report.verdicts)))
    for status, (_, counted) in JUNIT.items():
        suite.set(counted, str(sum(verdict.status == status for verdict in report.verdicts)))
    properties = ET.SubElement(suite, "properties")
    for name, value in report.facts.items():
        ET.SubElement(properties, "property", name=name, value=printable(str(value)))
    for verdict in report.verdicts:
        seconds = {} if verdict.seconds is None else {"time": f"{verdict.seconds:.9f}"}
        named = {"classname": f"{report.command}.{report.board}", "name": printable(verdict.name)}
        case = ET.SubElement(suite, "testcase", named | seconds)
        if verdict.status in JUNIT:
            ET.SubElement(case, JUNIT[verdict.status][0], message=printable(verdict.text))
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


FORMATS: Mapping[str, Callable[[VerdictReport], str]] = {".md": markdown, ".html": html}
"""Of `--report`, by the file's suffix."""


def check_paths(report: Path | None, junit_path: Path | None) -> None:
    """`UsageError` for files that are not written; called before anything is measured."""
    if report and report.suffix not in FORMATS:
        raise UsageError(f"--report {report}: give a file that ends in {' or '.join(FORMATS)}")
    if junit_path and junit_path.suffix != ".xml":
        raise UsageError(f"--junit {junit_path}: give a file that ends in .xml")


def write(made: VerdictReport, report: Path | None, junit_path: Path | None) -> None:
    if report:
        write_atomically(report, FORMATS[report.suffix](made))
    if junit_path:
        write_atomically(junit_path, junit(made))
