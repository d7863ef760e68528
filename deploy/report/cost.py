"""What the run took: wall time and CPU by stage, and minutes of the board."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from html import escape

from deploy.formats.plots.figures import Axis, Bars, Plot, Points
from deploy.formats.plots.pages import wide
from deploy.report.material import Material

FULL_MODELS = {"sample": "agree", "candidate-": "search", "teacher-": "search"}
"""What their names begin with, and the stage that measures them; final models bear their budgets' names."""


def cost(material: Material) -> str:
    """In words, and a bar for each stage where the run's folder still says."""
    seconds = material.summary.seconds
    board = _board_seconds(material)
    on_board = f"; the board ran models for {sum(board.values()) / 60:.1f} minutes" if board else ""
    stages = {name: state for name, state in material.state.stages.items() if name in seconds}
    cpu = f", {sum(state.cpu_seconds for state in stages.values()) / 60:.1f} of CPU" if stages else ""
    by_stage = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items() if stage != "total")
    text = f"{seconds.get('total', 0.0) / 60:.1f} minutes of work{cpu}{on_board}: {by_stage}."
    if not stages:
        return f"<p>{escape(text)}</p>"
    tips = tuple(
        f"{name}: {state.seconds:.0f} s, {state.cpu_seconds:.0f} s of CPU, {board.get(name, 0.0):.0f} s of the board"
        for name, state in stages.items()
    )
    bars = Bars(tuple(state.seconds / 60 for state in stages.values()), ("models",) * len(stages), tips, "wall time")
    busy = [(float(at), board[name] / 60) for at, name in enumerate(stages) if name in board]
    marks = Points(
        tuple(at for at, _ in busy),
        tuple(minutes for _, minutes in busy),
        "selected",
        "of the board",
        shape="diamond",
        size=4.5,
    )
    plot = Plot(
        "Work by stage, over all interruptions",
        Axis("", names=tuple(stages)),
        Axis("minutes", zero=True),
        (bars, marks) if busy else (bars,),
        height=170,
    )
    return f"<p>{escape(text)}</p>{wide(plot)}"


def _board_seconds(material: Material) -> Mapping[str, float]:
    """By stage; none where the run's own store has no measurements."""
    final, seconds = {model.name for model in material.models}, defaultdict[str, float](float)
    for measurement in material.measurements:
        name = measurement.model
        full = next((stage for prefix, stage in FULL_MODELS.items() if name.startswith(prefix)), "profile")
        seconds["ship" if name in final else full] += measurement.board_us / 1e6
    return seconds
