"""The models of a run in numbers, and what is said of each."""

from __future__ import annotations

from html import escape

from deploy.formats.plots.pages import scrolled
from deploy.run.records import ModelRecord, Summary
from deploy.ship.budgets import limit_text
from deploy.ship.differences import CONTROL, board_text, measured_text, on_board_text, shown_text
from nas.estimate import Estimate

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
    """Whether each keeps its budget and what it scores against the control, then all in numbers."""
    return _verdicts_table(summary) + _model_table(summary) + _notes(summary)


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
    return scrolled(f"<table><thead><tr>{head}</tr></thead>{bodies}</table>")


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


def _verdicts_table(summary: Summary) -> str:
    """A row per selected model; the one that is bundled says so."""
    titles = (
        "selected model",
        "its budget, as measured",
        f"points against {summary.teacher_plus.name} [95 % interval] on {summary.data.val} images",
        f"{summary.metric.name} on the training images that choose, %",
    )
    rows = ""
    for model in summary.models:
        limits = (limit_text(verdict) for verdict in summary.budgets if verdict.name == model.name)
        d, held_out = model.against_teacher_plus, model.score_held_out
        against = f"{d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}]: {shown_text(d)}" if d else "?"
        name = escape(model.name)
        named = f"<b>{name}</b> (bundled)" if model.name == summary.bundle.model else name
        cells = (named, "<br />".join(map(escape, limits)) or "no limit", escape(against))
        score = "?" if held_out is None else f"{held_out:.2f}"
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in (*cells, score))}</tr>"
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return scrolled(f'<table class="texts"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>') if rows else ""


def _notes(summary: Summary) -> str:
    """What teacher_plus is, when latencies were measured, and where the board's answers are not the simulation's."""
    board = summary.conditions.board
    lines = [f"{summary.teacher_plus.name}: {CONTROL} by the selected models' recipe, with as many steps"]
    lines += [measured_text(summary.all_models)]
    scored = [(model.name, model.board) for model in summary.all_models if model.board]
    odd = [(name, score) for name, score in scored if score.failed or _differs(score.against_int8)]
    lines += [f"{name}: {on_board_text(score, board)}" for name, score in odd]
    if len(odd) < len(scored):
        which = "every model" if not odd else "every other model"
        lines += [f"{which} scores on {board} what the integer simulation scores"]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _differs(difference: Estimate) -> bool:
    return (difference.value, difference.low, difference.high) != (0.0, 0.0, 0.0)
