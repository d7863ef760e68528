"""The page of a run that is on, or was killed: what is there, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from deploy.formats.plots.pages import figures, table, wide
from deploy.formats.plots.svg import inline
from deploy.latency.scatter import PAGE_WIDTH, scatter
from deploy.report.training_curves import training_curves, training_plots
from deploy.run.records import AgreementRecord, RunState, SearchRecord, Summary
from hil.errors import UsageError

STAGES = ("teacher", "distil", "tables", "profile", "agree", "search", "retrain", "ship")
SHOWN = {
    AgreementRecord.FILE: "the agreement",
    SearchRecord.FILE: "the selected models",
    Summary.FILE: "the final models",
}


def unfinished(folder: Path) -> Iterator[str]:
    """The page's parts; `UsageError` for a folder in which no run was begun."""
    if not (folder / RunState.FILE).exists():
        raise UsageError(f"{folder}: no run there; name a run's folder, which has a {RunState.FILE}")
    state = RunState.read(folder / RunState.FILE)
    yield f"<h1>hilnas: {escape(folder.resolve().name)}</h1>"
    missing = [text for file, text in SHOWN.items() if not (folder / file).exists()]
    yield f'<p class="warning">This run is not finished: {escape(", ".join(missing))} missing.</p>'
    names = [*STAGES, *(name for name in state.stages if name not in STAGES)]
    yield f"<h2>Stages</h2>{table(('stage', 'state', 's'), (_row(name, state) for name in names))}"
    if (folder / SearchRecord.FILE).exists():
        selected = SearchRecord.read(folder / SearchRecord.FILE).selected
        lines = "".join(f"<li>{escape(m.name)}: <code>{escape(m.subnet)}</code></li>" for m in selected)
        yield f"<h2>Selected models</h2><ul>{lines}</ul>"
    if (folder / AgreementRecord.FILE).exists():
        drawn = wide(scatter(AgreementRecord.read(folder / AgreementRecord.FILE)), PAGE_WIDTH)
        yield f"<h2>Agreement of the tables with the board</h2>{drawn}"
    curves = [inline(plot) for curve in training_curves(folder) for plot in training_plots(curve)]
    if curves:
        yield f"<h2>Training</h2>{figures(curves)}"


def _row(name: str, state: RunState) -> tuple[str, str, str]:
    found = state.stages.get(name)
    said = "not begun" if found is None else "done" if found.done else "begun"
    seconds = "" if found is None else f"{found.seconds:.0f}"
    return name, said, seconds
