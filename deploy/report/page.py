"""report.html: one self-contained page with all that a run found."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from deploy.formats.files import write_atomically
from deploy.formats.plots.pages import figures, page, scrolled, wide
from deploy.formats.plots.svg import inline
from deploy.latency.watermark import watermark
from deploy.report.agreement import agreement
from deploy.report.architectures import architectures, legend_text
from deploy.report.classes import classes
from deploy.report.cost import cost
from deploy.report.exploration import SCRIPT, exploration
from deploy.report.feedback import feedback
from deploy.report.figures import front_plot, models_plot
from deploy.report.headline import headline
from deploy.report.images import images
from deploy.report.latencies import latencies
from deploy.report.material import Material
from deploy.report.models import models
from deploy.report.placement import placement
from deploy.report.repeat import repeat
from deploy.report.training_curves import training_curves, training_plots
from deploy.report.unfinished import unfinished
from deploy.run.records import AgreementRecord, BundleRecord, SearchRecord, Summary
from deploy.ship.tail_text import tail_lines
from hil.measurement import Conditions

FILE = "report.html"
SHOWN = ("board", "soc", "machine", "kernel", "runtime", "delegate", "kernels", "threads", "governor")
HOW = {"replay": "Replayed, not measured", "qemu": "Emulated"}


def write_report(folder: Path, refresh_s: float | None = None) -> Path:
    """The page of a run from the files in its folder, as far as it is; `UsageError` for no run.

    `refresh_s`: how often a browser loads the page of a run that is on again.
    """
    parts = _parts(Material.of(folder)) if is_finished(folder) else unfinished(folder)
    path = folder / FILE
    title = f"hilnas: {folder.resolve().name}"
    write_atomically(path, page(title, "\n".join(parts), None if is_finished(folder) else refresh_s))
    return path


def is_finished(folder: Path) -> bool:
    return all((folder / name).exists() for name in (Summary.FILE, AgreementRecord.FILE, SearchRecord.FILE))


def _parts(material: Material) -> Iterator[str]:
    summary = material.summary
    yield f"<h1>hilnas: {escape(summary.name)}</h1>"
    for mark in (watermark(summary.conditions), material.data_warning):
        if mark:
            yield f'<p class="warning">{escape(mark)}</p>'
    yield headline(material)
    yield wide(models_plot(summary, material.comparisons))
    for title, section in _sections(material):
        if section:
            yield f"<h2>{title}</h2>{section}"
        if 'id="exploration"' in section:
            yield f"<script>addEventListener('DOMContentLoaded', () => {{{SCRIPT}}});</script>"


def _sections(material: Material) -> Iterator[tuple[str, str]]:
    """(title, content) in their order; an empty one is left out."""
    summary = material.summary
    yield "Models", models(summary) + _tail_text(material)
    yield "What they see", images(material)
    yield "Classes", classes(material)
    drawn = architectures(material)
    yield "Architectures", f'<p class="muted">{legend_text()}</p>{scrolled(drawn)}' if drawn else ""
    front = f'<div id="front">{wide(front_plot(material.search))}</div>'
    yield "The front that they were selected from", front + exploration(material)
    yield "Measuring the candidates", feedback(material)
    yield "Latency, round by round", latencies(material)
    yield "Agreement of the tables with the board", agreement(material)
    yield "Placement", placement(material)
    yield "The bundle", f"<p>{_bundle_text(summary.bundle)}</p>"
    yield "Conditions", f"<p>{escape(_conditions_text(summary.conditions))}</p>"
    yield "Time", cost(material)
    curves = [inline(plot) for curve in training_curves(material.folder) for plot in training_plots(curve)]
    yield "Training", figures(curves) if curves else ""
    yield "Again", repeat(material)


def _tail_text(material: Material) -> str:
    """What the tail saves; nothing where none was measured."""
    lines = tail_lines(material.tail) if material.tail else []
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _conditions_text(conditions: Conditions) -> str:
    values = conditions.to_json()
    return f"{HOW.get(conditions.kind, 'Measured on')}: " + ", ".join(
        f"{k} {values[k]}" for k in SHOWN if values.get(k) not in (None, "", "unknown")
    )


def _bundle_text(bundle: BundleRecord) -> str:
    verdict = "verified" if bundle.verified else "NOT verified"
    return f"<code>{escape(bundle.path)}</code> ({escape(bundle.model)}), {verdict} on {escape(bundle.board)}"
