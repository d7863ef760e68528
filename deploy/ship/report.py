"""report.html: one self-contained page with a run's models, the Pareto front, the agreement and the training curves."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from deploy.formats.files import write_atomically
from deploy.formats.plots.pages import figures, page
from deploy.formats.plots.svg import inline
from deploy.latency.gate import gate_text
from deploy.latency.scatter import PAGE_WIDTH, scatter
from deploy.latency.suspects import repair_text
from deploy.latency.watermark import watermark
from deploy.run.records import (
    AgreementRecord,
    BundleRecord,
    DataRecord,
    ModelRecord,
    SearchRecord,
    Summary,
    TailRecord,
)
from deploy.ship.budgets import verdict_text
from deploy.ship.differences import CONTROL, board_text, difference_text, measured_text, on_board_text
from deploy.ship.report_figures import front_plot, models_plot
from deploy.ship.tail_text import tail_lines
from deploy.ship.training_curves import training_curves, training_plots
from hil.measurement import Conditions

SHOWN = ("board", "soc", "machine", "kernel", "runtime", "delegate", "kernels", "threads")
QUANTITIES = {"nsr": "NSR"}  # for people
HOW = {"replay": "Replayed, not measured", "qemu": "Emulated"}
COLUMNS = (
    "model",
    "{metric} FP32, %",
    "{metric} INT8, %",
    "{metric} by the board, %",
    "weights, kB",
    "bits: requested / stored / executed",
    "MMACs",
    "MACs off the fast place, expected",
    "latency, ms (median)",
    "p90, ms",
    "runs",
)


def write_report(path: Path, summary: Summary, agreement: AgreementRecord, search: SearchRecord) -> None:
    """The page for one run, from its records, and from the training curves and data.json in the page's folder."""
    marks = (watermark(summary.conditions), _data_warning(path.with_name(DataRecord.FILE)))
    banner = "".join(f'<p class="warning">{escape(mark)}</p>' for mark in marks if mark)
    plots = [inline(plot) for plot in (models_plot(summary), front_plot(search))]
    compared = [inline(scatter(agreement), PAGE_WIDTH)]
    curves = [inline(plot) for curve in training_curves(path.parent) for plot in training_plots(curve)]
    body = f"""<h1>hilnas: {escape(summary.name)}</h1>
{banner}<p class="muted">{escape(_conditions_text(summary.conditions))}</p>
<h2>Models</h2>{_model_table(summary)}{_verdicts_text(summary)}{_tail_text(path.with_name(TailRecord.FILE))}
{figures(plots)}
<h2>Agreement of the tables with the board</h2>{_agreement_text(summary, agreement)}{figures(compared)}
<h2>The bundle</h2><p>{_bundle_text(summary.bundle)}</p>
<h2>Time</h2><p>{_seconds_text(summary.seconds)}</p>
{f"<h2>Training</h2>{figures(curves)}" if curves else ""}"""
    write_atomically(path, page(f"hilnas: {summary.name}", body))


def bits_text(model: ModelRecord) -> str:
    """Bit widths of a model's weights: requested / stored / executed; '?' where they are not known."""
    widths = (model.requested_bits, model.stored_bits, model.executed_bits)
    return " / ".join(", ".join(map(str, bits)) if bits else "?" for bits in widths)


def off_text(model: ModelRecord) -> str:
    """The share of a model's multiply-accumulates off the target's fast place."""
    placed = model.placement
    return f"{placed.off_share:.1%} off {placed.target}'s {placed.fast_place}" if placed else "?"


def _data_warning(path: Path) -> str | None:
    """What the check of the run's files found; None for generated images, which have none."""
    return DataRecord.read(path).warning if path.exists() else None


def _tail_text(path: Path) -> str:
    """What the tail saves; nothing where none was measured."""
    lines = tail_lines(TailRecord.read(path)) if path.exists() else []
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _conditions_text(conditions: Conditions) -> str:
    values = conditions.to_json()
    return f"{HOW.get(conditions.kind, 'Measured on')}: " + ", ".join(
        f"{k} {values[k]}" for k in SHOWN if values.get(k)
    )


def _model_table(summary: Summary) -> str:
    """A row per model, its architecture beneath."""
    titles = (escape(title.format(metric=summary.metric.name)) for title in COLUMNS)
    head = "".join(f"<th>{title}</th>" for title in titles)
    bodies = "".join(f"<tbody>{_model_rows(model)}</tbody>" for model in summary.all_models)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{bodies}</table></div>'


def _model_rows(model: ModelRecord) -> str:
    latency = model.latency_us
    cells = (
        model.name,
        f"{model.score_fp32:.2f}",
        f"{model.score_int8:.2f}",
        board_text(model),
        f"{model.size_bits / 8000:.1f}",
        bits_text(model),
        f"{model.macs / 1e6:.1f}",
        off_text(model),
        f"{latency.median / 1000:.3f}",
        f"{latency.p90 / 1000:.3f}",
        str(latency.n),
    )
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    if model.subnet == "teacher":
        return f"<tr>{row}</tr>"
    scheme = f" ({model.scheme})" if model.scheme else ""
    subnet = escape(model.subnet.replace("+", " + ") + scheme)
    return f'<tr>{row}</tr><tr class="subnet"><td colspan="{len(cells)}">{subnet}</td></tr>'


def _verdicts_text(summary: Summary) -> str:
    """What teacher_plus is, when latencies were measured, each model's differences, whether each budget is kept."""
    lines = [f"{summary.teacher_plus.name}: {CONTROL} by the selected models' recipe, with as many steps"]
    lines += [measured_text(summary.all_models)]
    lines += [f"{m.name}: {difference_text(d)}" for m in summary.models if (d := m.against_teacher_plus)]
    lines += [f"{m.name}: {on_board_text(m.board, summary.conditions.board)}" for m in summary.all_models if m.board]
    lines += [verdict_text(verdict) for verdict in summary.budgets]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _agreement_text(summary: Summary, agreement: AgreementRecord) -> str:
    a, c, counts = summary.agreement, summary.correction, summary.counts
    applied = "" if c.applied else " (not applied)"
    ranks = (
        f"Kendall's tau-b between the sum of block latencies and the measured latency of {a.n_models} full models: "
        f"<b>{a.tau_b:.3f}</b>, 95 % interval {a.ci95[0]:.3f} to {a.ci95[1]:.3f}; two halves of the same measurements "
        f"agree to {a.ceiling_tau_b:.3f}. With the correction, on held-out models: {c.tau_b_held_out:.3f}; mean error "
        f"{c.error_before:.1f} % before, {c.error_held_out:.1f} % after{applied}."
    )
    parity = (
        f"{counts.subnets_compiled} subnets compiled, {counts.subnets_measured} measured; the outputs of "
        f"{counts.subnets_exact_parity} equal the integer simulation's, byte for byte."
    )
    gate = escape(f"The {gate_text(summary.gate)}")
    repairs = (escape(f"The table was repaired: {repair_text(repair)}.") for repair in agreement.repairs)
    texts = (ranks, *repairs, escape(_decision_text(agreement)), f"{gate}.", parity)
    return "".join(f"<p>{text}</p>" for text in texts)


def _decision_text(agreement: AgreementRecord) -> str:
    """What the agreement means for the search."""
    a, regret, excluded = agreement.agreement, agreement.regret, len(agreement.excluded)
    failed = f" {excluded} sampled models failed on the board and are left out." if excluded else ""
    return (
        f"Of the {a.top_k} fastest models {a.top_recall:.0%} are among the {a.top_k} that the table predicts fastest; "
        f"selected under five budgets of {QUANTITIES.get(regret.quantity, regret.quantity)}, a model is at most "
        f"{regret.worst_percent:.1f} % slower than the fastest one.{failed}"
    )


def _bundle_text(bundle: BundleRecord) -> str:
    verdict = "verified" if bundle.verified else "NOT verified"
    return f"<code>{escape(bundle.path)}</code> ({escape(bundle.model)}), {verdict} on {escape(bundle.board)}"


def _seconds_text(seconds: Mapping[str, float]) -> str:
    return escape(", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items()))
