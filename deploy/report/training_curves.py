"""Curves of a run's trainings, from the files `*.training.csv` beside its checkpoints."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.formats.plots.figures import Axis, Line, Plot
from hil.errors import UsageError

SUFFIX = ".training.csv"
COLUMNS = ("step", "loss", "learning_rate", "seconds")
FOLDERS = ("", "students")  # of a run's folder
MOST_POINTS = 300  # of a curve; more steps are averaged
LOG_FROM = 20.0  # largest over smallest loss


@dataclass(frozen=True)
class TrainingCurve:
    """A training: loss and learning rate of each step, and the seconds of all."""

    name: str
    steps: tuple[float, ...]
    loss: tuple[float, ...]
    learning_rate: tuple[float, ...]
    seconds: float


def training_curves(run: Path) -> Iterator[TrainingCurve]:
    """Those of a run's folder, the teacher's first, the students' last; `UsageError` for a file of other columns."""
    for folder in FOLDERS:
        for path in sorted((run / folder).glob(f"*{SUFFIX}"), key=lambda p: (p.name != f"teacher{SUFFIX}", p.name)):
            curve = read_curve(path)
            if curve.steps:
                yield curve


def read_curve(path: Path) -> TrainingCurve:
    """A file's curve; the rest of a row that a kill cut is left out."""
    rows = [row for row in path.read_text(encoding="utf8").splitlines(keepends=True) if row.endswith("\n")]
    header, *values = csv.reader(rows) if rows else [[]]
    if tuple(header) != COLUMNS:
        raise UsageError(f"{path}: columns '{','.join(header)}' in place of '{','.join(COLUMNS)}'; delete the file")
    try:
        numbers = [tuple(map(float, row)) for row in values]
        steps, loss, rates, seconds = zip(*numbers, strict=True) if numbers else ((), (), (), ())
    except ValueError as error:
        raise UsageError(f"{path}: {error}; delete the file") from None
    return TrainingCurve(path.name.removesuffix(SUFFIX), steps, loss, rates, sum(seconds))


def training_plots(curve: TrainingCurve) -> tuple[Plot, Plot]:
    """Loss and learning rate by step."""
    share = -(-len(curve.steps) // MOST_POINTS)
    steps, loss, rate = (_means(v, share) for v in (curve.steps, curve.loss, curve.learning_rate))
    finite = [value for value in loss if math.isfinite(value)]
    log = bool(finite) and min(finite) > 0 and max(finite) > LOG_FROM * min(finite)
    title = f"{curve.name}: {len(curve.steps)} steps, {curve.seconds:.0f} s"
    title += f"; means of {share}" if share > 1 else ""
    return (
        Plot(title, Axis("step"), Axis("loss", log), (Line(steps, loss, "loss"),), height=150),
        Plot(
            f"{curve.name}: learning rate",
            Axis("step"),
            Axis("learning rate", zero=True),
            (Line(steps, rate, "learning rate"),),
            height=150,
        ),
    )


def _means(values: Sequence[float], share: int) -> tuple[float, ...]:
    """Of each `share` values in order."""
    parts = (values[i : i + share] for i in range(0, len(values), share))
    return tuple(sum(part) / len(part) for part in parts)
