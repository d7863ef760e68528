"""The models of a run in numbers, and what is said of each."""

from __future__ import annotations

from html import escape

from deploy.run.records import ModelRecord, Summary
from deploy.ship.budgets import verdict_text
from deploy.ship.differences import CONTROL, board_text, difference_text, measured_text, on_board_text

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


def models(summary: Summary) -> str:
    """The table, and the verdicts beneath it."""
    return _model_table(summary) + _verdicts_text(summary)


def bits_text(model: ModelRecord) -> str:
    """Bit widths of a model's weights: requested / stored / executed; '?' where they are not known."""
    widths = (model.requested_bits, model.stored_bits, model.executed_bits)
    return " / ".join(", ".join(map(str, bits)) if bits else "?" for bits in widths)


def off_text(model: ModelRecord) -> str:
    """The share of a model's multiply-accumulates off the target's fast place."""
    placed = model.placement
    return f"{placed.off_share:.1%} off {placed.target}'s {placed.fast_place}" if placed else "?"


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
