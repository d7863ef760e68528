"""Where a board's target is expected to run each model's operators, and which of them leave its fast place."""

from __future__ import annotations

from html import escape

from deploy.formats.plots.pages import table
from deploy.report.material import Material


def placement(material: Material) -> str:
    """A row a model; nothing where the board names no target."""
    placed = [(model, model.placement) for model in material.models if model.placement]
    if not placed:
        return ""
    target, fast = placed[0][1].target, placed[0][1].fast_place
    if not any(where.off_share > 0 for _, where in placed):
        return f"<p>By the rules of target {escape(target)}, every multiply-accumulate runs on its {escape(fast)}.</p>"
    command = f"hilnas lint {material.folder}/models/NAME.tflite --target {target}"
    rows = [(model.name, f"{1 - where.off_share:.1%}", f"{where.off_share:.1%}") for model, where in placed]
    return (
        f"<p>By the rules of target {escape(target)}; <code>{escape(command)}</code> names the operators.</p>"
        f"{table(('model', f'MACs on {fast}', 'off it'), rows)}"
    )
