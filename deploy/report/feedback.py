"""What measuring full models changed: candidates as they were predicted and as they were measured."""

from __future__ import annotations

from deploy.formats.plots.figures import Axis, Line, Plot, Points
from deploy.formats.plots.pages import figures
from deploy.formats.plots.svg import inline
from deploy.report.material import Material
from deploy.run.records.search import ConfirmedBudget


def feedback(material: Material) -> str:
    """A plot for each budget of latency; nothing where the table alone decided."""
    confirmed = material.search.confirmed
    if confirmed is None:
        return ""
    plots = [inline(_plot(budget)) for budget in confirmed.budgets if budget.candidates]
    rounds = "; ".join(
        f"round {i}: {r.models} models, {r.correction.error_before:.2f} % before and "
        f"{r.correction.error_held_out:.2f} % after ({'applied' if r.correction.applied else 'not applied'})"
        for i, r in enumerate(confirmed.rounds, start=1)
    )
    text = (
        f"The table's mean error of full models before and after a correction, on models left out of its fit: {rounds}."
    )
    return f"<p>{text}</p>{figures(plots) if plots else ''}"


def _plot(budget: ConfirmedBudget) -> Plot:
    shown = [c for c in budget.candidates if c.measured_us is not None]
    places = tuple(float(i) for i in range(len(shown)))
    names = tuple(f"round {c.round}{', kept' if c.kept else ''}" for c in shown)
    predicted = tuple(c.predicted_us / 1000 for c in shown)
    measured = tuple((c.measured_us or 0.0) / 1000 for c in shown)
    limit = budget.limit_us / 1000
    return Plot(
        f"Budget {budget.name}: candidates measured as full models, best first",
        Axis("", names=names),
        Axis("latency, ms"),
        (
            Line((-0.4, len(shown) - 0.6), (limit, limit), "offender", f"limit, {limit:.3f} ms", dotted=True),
            Points(places, predicted, "muted", "predicted by the table", tuple(c.subnet for c in shown), shape="ring"),
            Points(places, measured, "selected", "measured", tuple(c.subnet for c in shown), shape="diamond", size=4.5),
        ),
        notes=("kept: its whole interval is within the limit",),
        height=180,
    )
