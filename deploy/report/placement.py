"""Where a board's target is expected to run each model's operators, and which of them leave its fast place."""

from __future__ import annotations

from collections import Counter
from html import escape

from deploy.formats.plots.pages import table
from deploy.report.material import Material


def placement(material: Material) -> str:
    """A row a model; nothing where the board names no target."""
    placed = [(model, model.placement) for model in material.models if model.placement]
    if not placed:
        return ""
    target, fast = placed[0][1].target, placed[0][1].fast_place
    counts = Counter(model.placement.off_share > 0 for model in material.models if model.placement)
    said = (
        f"By the rules of target {target}, every multiply-accumulate of every model runs on {fast}."
        if not counts[True]
        else f"By the rules of target {target}; `hilnas lint RUN/models/NAME.tflite --target {target}` names operators."
    )
    if not counts[True]:
        return f"<p>{escape(said)}</p>"
    rows = [(model.name, f"{1 - where.off_share:.1%}", f"{where.off_share:.1%}") for model, where in placed]
    return f"<p>{escape(said)}</p>{table(('model', f'MACs on {fast}', 'off it'), rows)}"
