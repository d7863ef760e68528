"""The report's plots of a run: its models on the board, and the Pareto front that they were selected from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from deploy.compare.records import ComparisonRecord
from deploy.formats.plots.figures import Axis, Line, Plot, Points
from deploy.run.records import ModelRecord, SearchRecord, SelectedModel, Summary
from deploy.ship.differences import CONTROL

LOG_FROM = 5.0  # slowest over fastest


def models_plot(summary: Summary, comparisons: Sequence[ComparisonRecord] = ()) -> Plot:
    """Score against measured latency: models with both intervals, controls, the budgets' limits as lines."""
    models = summary.models
    metric = summary.metric.name
    control = summary.teacher_plus.score_int8
    intervals = tuple((control + d.low, control + d.high) for m in models if (d := m.against_teacher_plus))
    selected = _measured(models, "selected", "selected models", metric)
    names = tuple(f"{m.name} (bundled)" if m.name == summary.bundle.model else m.name for m in models)
    marks: list[Line | Points] = [
        *_limits(summary),
        *_controls(comparisons, summary.teacher.latency_us.median),
        _measured((summary.teacher,), "ink", "teacher", metric),
        _measured((summary.teacher_plus,), "muted", f"{summary.teacher_plus.name}: {CONTROL}", metric),
        replace(selected, labels=names, y_intervals=intervals if len(intervals) == len(models) else ()),
    ]
    notes = (f"bars: 95 % intervals, of the latency's median and of the difference to {summary.teacher_plus.name}",)
    title = f"What each model costs and gives, on {summary.conditions.board}"
    shown = tuple(mark for mark in marks if not isinstance(mark, Points) or mark.x)
    return Plot(title, Axis("measured latency, ms"), Axis(f"{metric} INT8, %"), shown, notes=notes, height=330)


def _limits(summary: Summary) -> Iterator[Line]:
    """A vertical line at the most latency of each budget."""
    scores = [model.score_int8 for model in summary.all_models]
    limits = {v.limit: v.name for v in summary.budgets if v.quantity == "latency" and v.limit < 1}
    for limit, name in limits.items():
        x = limit * summary.teacher.latency_us.median / 1000
        yield Line((x, x), (min(scores), max(scores)), "muted", f"limit of {name}, {limit:.1%}", dotted=True)


def _controls(comparisons: Sequence[ComparisonRecord], teacher_us: float) -> Iterator[Points]:
    """What was retrained within a budget without being searched for; its latency is measured, or the table's."""
    rows = [
        (share.value * teacher_us if share else row.predicted_us, row)
        for comparison in comparisons
        for row in comparison.methods
        if (share := row.latency_share) or row.predicted_us
    ]
    placed = [(x / 1000, row) for x, row in rows if x is not None]
    yield Points(
        tuple(x for x, _ in placed),
        tuple(fmean(row.int8) for _, row in placed),
        "models",
        "controls and rivals (latency predicted)" if placed else "",
        tips=tuple(f"{row.method}: {row.subnet}\n{x:.3f} ms, {fmean(row.int8):.2f} %" for x, row in placed),
        shape="ring",
        size=4,
    )


def _measured(models: Iterable[ModelRecord], colour: str, name: str, metric: str) -> Points:
    shown = tuple(models)
    latencies = [m.latency_us for m in shown]
    return Points(
        tuple(latency.median / 1000 for latency in latencies),
        tuple(m.score_int8 for m in shown),
        colour,
        name,
        tips=tuple(
            f"{m.name}: {m.subnet}\n{m.latency_us.median / 1000:.3f} ms, {metric} {m.score_int8:.2f} %" for m in shown
        ),
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
