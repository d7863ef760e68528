"""How models compare with their baselines, for people and for CI: GitHub Markdown, a page, JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from deploy.formats.files import write_atomically
from deploy.formats.plots.figures import Axis, Line, Plot, Points
from deploy.formats.plots.pages import page, scrolled, wide
from deploy.regression.regress import Outcome
from hil.errors import UsageError
from hil.measurement import Conditions
from hil.regression import Comparison
from hil.stats import milliseconds

VERDICTS = {"ok": "ok", "regressed": "SLOWER", "failed": "FAILS", "incomparable": "not compared"}
COUNTED = {"regressed": "slower", "failed": "failing", "incomparable": "not compared"}
HEAD = ("model", "", "baseline ms", "today ms", "ratio", "95 % interval", "allowed")
LEFT = 2  # of these columns are text, the others are numbers
FIGURE_WIDTH = 900.0


@dataclass(frozen=True)
class RegressionReport:
    """What was compared on one board.

    Attributes:
        board: its name.
        conditions: of today's measurements.
    """

    board: str
    conditions: Conditions
    outcomes: tuple[Outcome, ...]

    @property
    def title(self) -> str:
        """Latency on imx8mp against the baseline: 3 models, 1 slower, 1 not compared"""
        counts = {words: sum(o.status == status for o in self.outcomes) for status, words in COUNTED.items()}
        odd = [f"{count} {words}" for words, count in counts.items() if count] or ["none slower"]
        models = f"{len(self.outcomes)} model{'s' if len(self.outcomes) > 1 else ''}"
        return f"Latency on {self.board} against the baseline: {', '.join([models, *odd])}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Cells beneath `HEAD`."""
        for o in self.outcomes:
            c = o.second or o.first
            yield (_printable(o.model), VERDICTS[o.status], *(_numbers(c) if c else [""] * (len(HEAD) - LEFT)))

    def remarks(self) -> Iterator[str]:
        """Of every model about which there is more to say than its row."""
        for o in self.outcomes:
            if o.status != "ok" or o.flags:
                yield _printable(outcome_text(o))

    def facts(self) -> Iterator[tuple[str, str]]:
        """The conditions by name."""
        for name, value in self.conditions.to_json().items():
            yield name, _printable(str(value))


def outcome_text(o: Outcome) -> str:
    """The model, what it was compared with and how, or why it was not."""
    if o.first is None:
        return f"{o.model}: {o.failure or o.gap}"
    shown = "; measured again: ".join(comparison_text(c) for c in (o.first, o.second) if c is not None)
    against = f"{o.against} {o.taken}".rstrip()
    parts = (shown, o.failure, f"allowed {1 + o.first.threshold:.3f}", ", ".join(o.flags))
    return f"{o.model} ({against}): {'; '.join(filter(None, parts))}"


def comparison_text(c: Comparison) -> str:
    return (
        f"{milliseconds(c.head_us)} ms against {milliseconds(c.base_us)} ms, ratio {c.ratio:.3f} "
        f"[{c.ci95[0]:.3f}, {c.ci95[1]:.3f}], p {c.p_value:.2g}"
    )


def _numbers(c: Comparison) -> tuple[str, ...]:
    interval = f"{c.ci95[0]:.3f} - {c.ci95[1]:.3f}"
    return milliseconds(c.base_us), milliseconds(c.head_us), f"{c.ratio:.3f}", interval, f"{1 + c.threshold:.3f}"


def markdown(report: RegressionReport) -> str:
    """GitHub Markdown, for a comment on a pull request."""
    aligned = ["---"] * LEFT + ["--:"] * (len(HEAD) - LEFT)
    table = [HEAD, aligned, *([_plain(cell) for cell in row] for row in report.rows())]
    lines = [f"### {_plain(report.title)}", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    lines += [f"- {_plain(remark)}" for remark in report.remarks()]
    lines += ["", "<details><summary>Conditions</summary>", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_plain(value)} |" for name, value in report.facts()]
    return "\n".join([*lines, "", "</details>", ""])


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, within a line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))


def html(report: RegressionReport) -> str:
    """A self-contained page with the ratios as a figure."""
    compared = [o for o in report.outcomes if o.first is not None]
    figure = wide(ratios(compared), FIGURE_WIDTH) if compared else ""
    head = "".join(f"<th>{cell}</th>" for cell in HEAD)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in report.rows())
    remarks = "".join(f"<p>{escape(remark)}</p>" for remark in report.remarks())
    conditions = "".join(f"<tr><td>{name}</td><td>{escape(value)}</td></tr>" for name, value in report.facts())
    compared_models = scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return page(
        "hilnas regress",
        f"<h1>{escape(report.title)}</h1>{figure}{compared_models}{remarks}"
        f"<h2>Conditions</h2>{scrolled(f'<table><tbody>{conditions}</tbody></table>')}",
    )


def ratios(compared: list[Outcome]) -> Plot:
    """Each model's ratio of latencies with its interval, and how much is allowed."""
    shown = [(o, c) for o in compared if (c := o.second or o.first) is not None]

    def points(places: list[int], colour: str, name: str) -> Points:
        kept = [shown[i] for i in places]
        return Points(
            tuple(map(float, places)),
            tuple(c.ratio for _, c in kept),
            colour,
            name,
            tips=tuple(f"{_printable(o.model)}\n{comparison_text(c)}" for o, c in kept),
            y_intervals=tuple(c.ci95 for _, c in kept),
        )

    slower = [i for i, (o, _) in enumerate(shown) if o.regressed]
    others = [i for i in range(len(shown)) if i not in slower]
    allowed = [
        Line((i - 0.4, i + 0.4), (1 + c.threshold,) * 2, "muted", "allowed" if i == 0 else "", dotted=True)
        for i, (_, c) in enumerate(shown)
    ]
    return Plot(
        "latency of today over the baseline's, 95 % intervals",
        Axis("model", names=tuple(_printable(o.model) for o, _ in shown)),
        Axis("ratio"),
        (
            Line((-0.5, len(shown) - 0.5), (1.0, 1.0), "muted"),
            *allowed,
            points(others, "models", "as fast"),
            *([points(slower, "offender", "slower")] if slower else []),
        ),
    )


def junit(report: RegressionReport) -> str:
    """JUnit XML: a test case per model, whose time is that of one inference, in seconds."""
    kinds = {"regressed": "failure", "failed": "error", "incomparable": "skipped"}
    suite = ET.Element("testsuite", name=f"hilnas regress {report.board}", tests=str(len(report.outcomes)))
    for status, counted in (("regressed", "failures"), ("failed", "errors"), ("incomparable", "skipped")):
        suite.set(counted, str(sum(o.status == status for o in report.outcomes)))
    properties = ET.SubElement(suite, "properties")
    for name, value in report.facts():
        ET.SubElement(properties, "property", name=name, value=value)
    for o in report.outcomes:
        c = o.second or o.first
        seconds = {"time": f"{c.head_us / 1e6:.9f}"} if c else {}
        named = {"classname": f"regress.{report.board}", "name": _printable(o.model)}
        case = ET.SubElement(suite, "testcase", named | seconds)
        if o.status in kinds:
            ET.SubElement(case, kinds[o.status], message=_printable(outcome_text(o)))
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """A program that dies prints anything, and XML has no place for it."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


FORMATS: Mapping[str, Callable[[RegressionReport], str]] = {".md": markdown, ".html": html}
"""Of `--report`, by the file's suffix."""


def check_paths(report: Path | None, junit_path: Path | None) -> None:
    """`UsageError` for files that are not written; called before anything is measured."""
    if report and report.suffix not in FORMATS:
        raise UsageError(f"--report {report}: give a file that ends in {' or '.join(FORMATS)}")
    if junit_path and junit_path.suffix != ".xml":
        raise UsageError(f"--junit {junit_path}: give a file that ends in .xml")


def write(made: RegressionReport, report: Path | None, junit_path: Path | None) -> None:
    if report:
        write_atomically(report, FORMATS[report.suffix](made))
    if junit_path:
        write_atomically(junit_path, junit(made))
