"""The frame of a plot: where its axes lie, their ticks, their labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape

from deploy.formats.plots.colours import fill, stroke
from deploy.formats.plots.figures import Axis, Bars, Events, Plot, Points
from deploy.formats.plots.labels import Rectangle
from deploy.formats.plots.scales import Scale, drawable, limits
from deploy.formats.plots.times import time_limits

FONT, SMALL = 12, 11  # pixels
LABEL_HEIGHT = 18  # of an axis's label
TICK_SPACE = {False: 60, True: 84}  # for a number, for a time
WIDTH_PER_CHARACTER = 0.56  # of the font's size: a sans-serif face's mean; text is measured by no font here


@dataclass(frozen=True)
class Frame:
    """The scales of a plot, and how far down its labels reach."""

    x: Scale
    y: Scale
    below: float
    names_size: float = SMALL

    @property
    def box(self) -> Rectangle:
        return self.x.start, self.y.end, self.x.end, self.y.start


def text_width(text: str, size: float) -> float:
    return len(text) * size * WIDTH_PER_CHARACTER


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Lines of at most `width` pixels, broken after a space, or after a + between blocks."""
    most, lines = max(8, int(width / (size * WIDTH_PER_CHARACTER))), []
    while len(text) > most:
        cut = max(text.rfind(" ", 1, most), text.rfind("+", 1, most)) + 1 or most
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, *([text] if text else [])]


def frame(plot: Plot, width: float, top: float) -> Frame:
    """The axes of `plot`, from `top` downwards."""
    y_low, y_high = limits(_values(plot, "y"), plot.y.log, plot.y.zero)
    if plot.x.names:
        x_low, x_high = -0.6, len(plot.x.names) - 0.4
    elif plot.x.time:
        x_low, x_high = time_limits(_values(plot, "x"))
    else:
        x_low, x_high = limits(_values(plot, "x"), plot.x.log, plot.x.zero)
    if plot.diagonal:
        x_low = y_low = min(x_low, y_low)
        x_high = y_high = max(x_high, y_high)
    bottom = top + plot.height
    y = Scale(y_low, y_high, bottom, top, plot.y.log)
    ticks = max((text_width(text, SMALL) for _, text in y.ticks()), default=0)
    left = 8 + LABEL_HEIGHT + ticks + 8
    x = Scale(x_low, x_high, left, width - 14, plot.x.log, plot.x.time)
    made = Frame(x, y, bottom + 18 + LABEL_HEIGHT)
    if plot.x.names:
        named = [i for i, name in enumerate(plot.x.names) if name]
        apart = min((b - a for a, b in itertools.pairwise(named)), default=1)
        step = apart * (x.end - x.start) / max(1, len(plot.x.names))
        size = min(float(SMALL), max(5.5, step * 0.95))
        longest = max(text_width(name, size) for name in plot.x.names)
        made = replace(made, below=bottom + 10 + longest + LABEL_HEIGHT, names_size=size)
    return made


def _values(plot: Plot, which: str) -> Iterator[float]:
    for mark in plot.marks:
        if isinstance(mark, Bars):
            yield from mark.heights if which == "y" else ()
            continue
        if isinstance(mark, Events):
            yield from mark.x if which == "x" else ()
            continue
        values, others = (mark.x, mark.y) if which == "x" else (mark.y, mark.x)
        other_log = plot.y.log if which == "x" else plot.x.log
        yield from (v for v, other in zip(values, others, strict=True) if drawable(other, other_log))
        if isinstance(mark, Points):
            for interval in mark.x_intervals if which == "x" else mark.y_intervals:
                yield from interval


def axis_elements(plot: Plot, axes: Frame) -> Iterator[str]:
    """Grid, ticks, the two lines and the labels."""
    left, top, right, bottom = axes.box
    y_ticks = axes.y.ticks()
    space = TICK_SPACE[plot.x.time]
    x_ticks = (
        [] if plot.x.names else axes.x.ticks() if plot.diagonal else axes.x.ticks(max(3, int((right - left) / space)))
    )
    lines = "".join(f"M{left:.1f},{axes.y.at(v):.1f}H{right:.1f}" for v, _ in y_ticks)
    lines += "".join(f"M{axes.x.at(v):.1f},{top:.1f}V{bottom:.1f}" for v, _ in x_ticks)
    yield f"<path d='{lines}' fill='none' {stroke('grid')}/>"
    yield (f"<path d='M{left:.1f},{top:.1f}V{bottom:.1f}H{right:.1f}' fill='none' {stroke('muted')}/>")
    yield f"<g font-size='{SMALL}' {fill('muted')}>"
    for value, text in y_ticks:
        yield f"<text x='{left - 6:.1f}' y='{axes.y.at(value) + 4:.1f}' text-anchor='end'>{text}</text>"
    for value, text in x_ticks:
        yield f"<text x='{axes.x.at(value):.1f}' y='{bottom + 15:.1f}' text-anchor='middle'>{text}</text>"
    yield "</g>"
    if plot.x.names:
        yield from _names(plot.x, axes)
    middle = (top + bottom) / 2
    yield f"<g {fill('ink')}>"
    yield (
        f"<text x='{(left + right) / 2:.1f}' y='{axes.below - 4:.1f}' text-anchor='middle'>"
        f"{escape(_axis_label(plot.x))}</text>"
    )
    upwards = _axis_label(plot.y)
    size = min(float(FONT), (bottom - top) / text_width(upwards, 1)) if upwards else FONT
    yield (
        f"<text transform='translate(16 {middle:.1f}) rotate(-90)' text-anchor='middle' font-size='{size:.1f}'>"
        f"{escape(upwards)}</text></g>"
    )


def _names(axis: Axis, axes: Frame) -> Iterator[str]:
    """Names of places, read from below."""
    bottom, size = axes.y.start, axes.names_size
    yield f"<g font-size='{size:.1f}' {fill('muted')} text-anchor='end'>"
    for i, name in enumerate(axis.names):
        if not name:
            continue
        x = axes.x.at(i) + size * 0.35
        yield f"<text transform='translate({x:.1f} {bottom + 6:.1f}) rotate(-90)'>{escape(name)}</text>"
    yield "</g>"


def _axis_label(axis: Axis) -> str:
    return f"{axis.label} (log scale)" if axis.log else axis.label
