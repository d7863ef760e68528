"""What a share of the blocks is worth: active measuring and random choice after each batch, over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.formats.plots.figures import Axis, Line, Plot, Points
from deploy.formats.plots.svg import write_svg
from deploy.run.records import Compared
from deploy.studies.latency.replay_record import ReplayOutcome, ReplayRecord

COLOURS = {"active": "selected", "random": "models"}
PANELS = (
    ("tau_b_corrected", "tau-b of held-out models, corrected", "tau-b with a share of the blocks"),
    ("hypervolume", "hypervolume, share of all blocks'", "Hypervolume of the Pareto front"),
)
PANEL_WIDTH = 440.0  # pixels


def write_image(path: Path, found: ReplayRecord) -> None:
    """A line per seed, and what measuring everything gives."""
    curves = [_curves(found, field, label, title) for field, label, title in PANELS]
    write_svg(path, [_agreement(found.agreement.predicted), *curves], columns=3, width=PANEL_WIDTH)


def _agreement(compared: Compared) -> Plot:
    samples = compared.samples
    points = Points(
        tuple(s.predicted_us / 1000 for s in samples),
        tuple(s.measured_us / 1000 for s in samples),
        tips=tuple(s.subnet for s in samples),
        size=3,
    )
    return Plot(
        f"tau-b {compared.agreement.tau_b:.3f} over {len(samples)} full models",
        Axis("sum of all blocks' posteriors + constant, ms"),
        Axis("measured, ms"),
        (points,),
        diagonal="predicted = measured",
    )


def _curves(found: ReplayRecord, field: str, label: str, title: str) -> Plot:
    lines = []
    for method, colour in COLOURS.items():
        for number, (x, y) in enumerate(_of_seeds(found.outcomes, method, field)):
            lines.append(Line(x, y, colour, "" if number else method, faint=True))
    ends = min(x for line in lines for x in line.x), max(x for line in lines for x in line.x)
    level = getattr(found.methods["everything"], field).mean
    lines.append(Line(ends, (level, level), "ink", "everything measured", dotted=True))
    return Plot(title, Axis(f"blocks measured, of {found.blocks}"), Axis(label), tuple(lines))


def _of_seeds(
    outcomes: Sequence[ReplayOutcome], method: str, field: str
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """For each seed (blocks, values), in the order of measuring."""
    of = [o for o in outcomes if o.method == method]
    seeds = sorted({o.seed for o in of})
    return [
        (tuple(o.blocks for o in of if o.seed == s), tuple(getattr(o, field) for o in of if o.seed == s)) for s in seeds
    ]
