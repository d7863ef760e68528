"""Several runs side by side: their models, their fronts over one another, what differs in their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from deploy.formats.files import read_json, write_atomically
from deploy.formats.plots.figures import Axis, Line, Plot, Points
from deploy.formats.plots.pages import figures, page, table
from deploy.formats.plots.svg import inline
from deploy.report.material import EXPERIMENT, Material
from hil.errors import UsageError

COLOURS = ("models", "selected", "learning rate", "offender", "2 bits", "7 bits", "5 bits", "muted")
SHAPES = ("dot", "diamond", "square", "triangle", "ring")
COLUMNS = (
    "run",
    "model",
    "metric INT8, %",
    "points against the teacher trained on [95 %]",
    "weights, kB",
    "latency, ms",
)


def write_several(folders: Sequence[Path], path: Path) -> None:
    """The page; `UsageError` for a run that is not finished, and for more than there are colours."""
    if len(folders) > len(COLOURS):
        raise UsageError(f"{len(folders)} runs: at most {len(COLOURS)} fit in one figure")
    runs = {_name(folder): Material.of(folder) for folder in folders}
    write_atomically(path, page("hilnas: " + ", ".join(runs), "\n".join(_parts(runs))))


def _name(folder: Path) -> str:
    path = folder.resolve()
    return f"{path.parent.name}/{path.name}"


def _parts(runs: Mapping[str, Material]) -> Iterator[str]:
    yield f"<h1>{len(runs)} runs</h1>"
    yield figures([inline(_models(runs)), inline(_fronts(runs))])
    yield f"<h2>Models</h2>{_table(runs)}"
    yield f"<h2>What differs in their settings</h2>{_differences(runs)}"


def _models(runs: Mapping[str, Material]) -> Plot:
    marks = []
    for i, (name, material) in enumerate(runs.items()):
        shown = material.models
        marks.append(
            Points(
                tuple(m.latency_us.median / 1000 for m in shown),
                tuple(m.score_int8 for m in shown),
                COLOURS[i],
                name,
                tips=tuple(f"{name}, {m.name}: {m.subnet}" for m in shown),
                labels=tuple(m.name for m in shown) if len(runs) <= 2 else (),
                shape="diamond" if i % 2 else "dot",
                size=4.5,
            )
        )
    return Plot("Models on their boards", Axis("measured latency, ms"), Axis("score INT8, %"), tuple(marks))


def _fronts(runs: Mapping[str, Material]) -> Plot:
    marks: list[Line | Points] = []
    for i, (name, material) in enumerate(runs.items()):
        front = sorted(material.search.pareto_front, key=lambda point: point.latency_us)
        x, y = tuple(p.latency_us / 1000 for p in front), tuple(p.nsr for p in front)
        marks.append(Line(x, y, COLOURS[i], name))
    return Plot("Exact fronts", Axis("predicted latency, ms", log=True), Axis("sum of block NSR"), tuple(marks))


def _table(runs: Mapping[str, Material]) -> str:
    rows = []
    for name, material in runs.items():
        for m in material.models:
            d = m.against_teacher_plus
            against = f"{d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}]" if d else ""
            latency = f"{m.latency_us.median / 1000:.3f}"
            rows.append((name, m.name, f"{m.score_int8:.2f}", against, f"{m.size_bits / 8000:.1f}", latency))
    return table(COLUMNS, rows)


def _differences(runs: Mapping[str, Material]) -> str:
    found = {
        name: _flat(read_json(m.folder / EXPERIMENT)) for name, m in runs.items() if (m.folder / EXPERIMENT).exists()
    }
    if len(found) < len(runs):
        unknown = escape(", ".join(name for name in runs if name not in found))
        return f"<p>Not known of {unknown}, whose settings are not kept: draw it with its --config.</p>"
    keys = dict.fromkeys(key for settings in found.values() for key in settings)
    rows = [(key, *(settings.get(key, "") for settings in found.values())) for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return table(("setting", *found), differing) if differing else "<p>Nothing.</p>"


def _flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """`teacher.schedule.steps` and the like, with their values in words."""
    if not isinstance(settings, Mapping):
        return {prefix.removesuffix("."): str(settings)}
    flat: dict[str, str] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat
