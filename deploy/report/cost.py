"""What the run took: wall time and CPU by stage, and minutes of the board."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from deploy.formats.plots.figures import Axis, Bars, Plot
from deploy.formats.plots.pages import figures
from deploy.formats.plots.svg import inline
from deploy.report.material import Material
from deploy.run.records import StageState


def cost(material: Material) -> str:
    """In words, and a bar for each stage where the run's folder still says."""
    seconds = material.summary.seconds
    board_s = sum(m.board_us for m in material.measurements) / 1e6
    on_board = f"; the board ran models for {board_s / 60:.1f} minutes" if board_s else ""
    stages = {name: state for name, state in material.state.stages.items() if name in seconds}
    cpu = f", {sum(state.cpu_seconds for state in stages.values()) / 60:.1f} of CPU" if stages else ""
    by_stage = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items() if stage != "total")
    text = f"{seconds.get('total', 0.0) / 60:.1f} minutes of work{cpu}{on_board}: {by_stage}."
    return f"<p>{escape(text)}</p>{figures([inline(_plot(stages), 1060)]) if stages else ''}"


def _plot(stages: Mapping[str, StageState]) -> Plot:
    tips = tuple(f"{name}: {state.seconds:.0f} s, {state.cpu_seconds:.0f} s of CPU" for name, state in stages.items())
    minutes = tuple(state.seconds / 60 for state in stages.values())
    return Plot(
        "Work by stage, over all interruptions",
        Axis("", names=tuple(stages)),
        Axis("minutes", zero=True),
        (Bars(minutes, ("models",) * len(stages), tips),),
        height=170,
    )
