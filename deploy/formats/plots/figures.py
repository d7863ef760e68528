"""What a figure shows: plots with axes and marks. `deploy.formats.plots.svg` draws them.

Marks name a meaning (`deploy.formats.plots.colours`), never a colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hil.errors import UsageError

Shape = Literal["dot", "diamond", "square", "triangle", "ring"]
SUFFIX = ".svg"


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        names: of the places 0, 1, 2, ... in place of numbers.
        zero: the axis begins at 0.
        time: values are seconds since 1970, shown in UTC.
    """

    label: str
    log: bool = False
    names: tuple[str, ...] = ()
    zero: bool = False
    time: bool = False


@dataclass(frozen=True)
class Points:
    """Points (x[i], y[i]).

    Attributes:
        name: in the legend; empty: not there.
        tips: for each point, what is shown where the pointer is.
        labels: for each point, what stands beside it; in the order in which they are placed.
        links: for each point, where it leads within the page that holds the plot.
        x_intervals, y_intervals: (low, high) for each point, drawn as error bars.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "models"
    name: str = ""
    tips: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    shape: Shape = "dot"
    size: float = 3.5
    x_intervals: tuple[tuple[float, float], ...] = ()
    y_intervals: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Line:
    """A line through (x[i], y[i]); `faint`: one of many."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "models"
    name: str = ""
    dotted: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar from 0 to `heights[i]` at each place i of an axis of names; a colour and a tip for each.

    `name`: in the legend, in the first bar's colour.
    """

    heights: tuple[float, ...]
    colours: tuple[str, ...]
    tips: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Events:
    """A line over the whole height at each x[i], with a label at its top and a tip."""

    x: tuple[float, ...]
    labels: tuple[str, ...]
    colour: str = "muted"
    name: str = ""
    tips: tuple[str, ...] = ()


Mark = Points | Line | Bars | Events


@dataclass(frozen=True)
class Plot:
    """One pair of axes with what is drawn between them.

    Attributes:
        warning: stands above the axes in the colour of an offender.
        notes: lines beneath the legend, in a typewriter face.
        diagonal: the legend's words for the line y = x; both axes then have one range.
        height: of the area between the axes, in pixels.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    warning: str = ""
    notes: tuple[str, ...] = ()
    diagonal: str = ""
    height: float = 260


def check_image(path: Path, option: str = "--plot") -> None:
    """`UsageError` for a file that cannot be drawn; called before anything is measured."""
    if path.suffix != SUFFIX:
        raise UsageError(f"{option} {path}: figures are written as SVG; give a file that ends in {SUFFIX}")
