"""The report's plots of a run: its models on the board, and the Pareto front that they were selected from."""

from __future__ import annotations

from collections.abc import Iterable

from deploy.formats.plots.figures import Axis, Line, Plot, Points
from deploy.run.records import ModelRecord, SearchRecord, SelectedModel, Summary
from deploy.ship.differences import CONTROL

LOG_FROM = 5.0  # slowest over fastest


def models_plot(summary: Summary) -> Plot:
    """Score against measured latency, with the latency's 95 % interval."""
    score, models = f"{summary.metric.name} INT8, %", summary.models
    teacher = _measured((summary.teacher,), "ink", "teacher", summary.metric.name)
    control = _measured((summary.teacher_plus,), "muted", CONTROL, summary.metric.name)
    selected = _measured(models, "selected", "selected models", summary.metric.name)
    return Plot(
        "Models on the board: median latency with its 95 % interval",
        Axis("measured latency, ms"),
        Axis(score),
        (teacher, control, *([selected] if models else [])),
    )


def _measured(models: Iterable[ModelRecord], colour: str, name: str, metric: str) -> Points:
    shown = tuple(models)
    latencies = [m.latency_us for m in shown]
    return Points(
        tuple(latency.median / 1000 for latency in latencies),
        tuple(m.score_int8 for m in shown),
        colour,
        name,
        tips=tuple(f"{m.name}: {m.latency_us.median / 1000:.3f} ms, {metric} {m.score_int8:.2f} %" for m in shown),
        labels=tuple(m.name for m in shown),
        shape="diamond" if colour == "selected" else "square",
        size=5,
        x_intervals=tuple((latency.ci95[0] / 1000, latency.ci95[1] / 1000) for latency in latencies),
    )


def front_plot(search: SearchRecord) -> Plot:
    """NSR against predicted latency: the exact Pareto front, and the selected models."""
    front, selected = search.pareto_front, search.selected
    x, y = tuple(p.latency_us / 1000 for p in front), tuple(p.nsr for p in front)
    every = (*x, *(s.predicted_us / 1000 for s in selected))
    log = bool(every) and min(every) > 0 and max(every) > LOG_FROM * min(every)
    tips = tuple(
        f"{p.subnet}{_scheme(p.scheme)}\npredicted {p.latency_us / 1000:.3f} ms, NSR {p.nsr:.4f}" for p in front
    )
    return Plot(
        "Exact Pareto front: quality against latency",
        Axis("predicted latency, ms", log),
        Axis("sum of block NSR (lower is better)"),
        (
            Line(x, y, "models", faint=True),
            Points(x, y, "models", "Pareto front", tips, size=3),
            _selected(selected),
        ),
    )


def _selected(models: tuple[SelectedModel, ...]) -> Points:
    return Points(
        tuple(m.predicted_us / 1000 for m in models),
        tuple(m.nsr for m in models),
        "selected",
        "selected models",
        tips=tuple(
            f"{m.name}: {m.subnet}{_scheme(m.scheme)}\npredicted {m.predicted_us / 1000:.3f} ms" for m in models
        ),
        labels=tuple(m.name for m in models),
        shape="diamond",
        size=5,
    )


def _scheme(name: str | None) -> str:
    return f" ({name})" if name else ""
