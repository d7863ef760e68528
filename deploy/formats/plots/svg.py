"""Plots as SVG: for pages (`inline`) and as files for documents (`write_svg`); the same bytes for the same plots.

Nothing is fetched, no font is embedded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from deploy.formats.files import write_atomically
from deploy.formats.plots.axes import FONT, SMALL, Frame, axis_elements, frame, text_width, wrapped
from deploy.formats.plots.colours import DARK, fill, outlined, stroke
from deploy.formats.plots.figures import Bars, Events, Line, Mark, Plot, Points, check_image
from deploy.formats.plots.labels import PlacedLabel, Rectangle, place
from deploy.formats.plots.scales import drawable

MONOSPACE = "font-family='ui-monospace, monospace'"
LINE = 16  # pixels from one line of text to the next
BOLD = 1.12  # of a text's width
GAP = 28  # between two plots of a file
MOST_POINTS = 400  # of one mark; more are thinned to one for each 3 x 3 pixels


@dataclass(frozen=True)
class Drawing:
    """A plot's elements with their size in pixels."""

    width: float
    height: float
    elements: str


def inline(plot: Plot, width: float = 480) -> str:
    """An <svg> element for a page, whose style sheet contains `DARK`."""
    drawing = draw(plot, width)
    box = f"viewBox='0 0 {_n(drawing.width)} {_n(drawing.height)}' style='--width: {_n(width)}px'"
    role = "group" if any(isinstance(mark, Points) and mark.links for mark in plot.marks) else "img"
    return f"<svg class='plot' {box} role='{role}' aria-label='{_text(plot.title)}'>{drawing.elements}</svg>"


def write_svg(path: Path, plots: Sequence[Plot], *, columns: int = 1, width: float = 640) -> None:
    """A file of plots side by side in `columns`, each `width` pixels wide; `UsageError` if it is no .svg."""
    check_image(path)
    drawn = [draw(plot, width) for plot in plots]
    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    total = columns * width + (columns - 1) * GAP
    parts, y = [], 0.0
    for row in rows:
        for column, drawing in enumerate(row):
            x = column * (width + GAP)
            parts.append(f"<g transform='translate({_n(x)} {_n(y)})'>{drawing.elements}</g>")
        y += max(drawing.height for drawing in row) + GAP
    height = y - GAP
    content = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_n(total)}' height='{_n(height)}' "
        f"viewBox='0 0 {_n(total)} {_n(height)}'><style>{DARK}</style>"
        f"<rect width='100%' height='100%' {fill('paper')}/>{''.join(parts)}</svg>\n"
    )
    write_atomically(path, content)


def draw(plot: Plot, width: float) -> Drawing:
    """From top to bottom: title, warning, axes with their marks, legend, notes."""
    parts: list[str] = []
    y = 6.0
    for line in wrapped(plot.title, width - 16, FONT + 1):
        y += LINE
        parts.append(
            f"<text x='8' y='{_n(y)}' font-size='{FONT + 1}' font-weight='600' {fill('ink')}>{_text(line)}</text>"
        )
    for line in wrapped(plot.warning, width - 16, FONT):
        y += LINE
        parts.append(f"<text x='8' y='{_n(y)}' font-weight='600' {fill('offender')}>{_text(line)}</text>")
    axes = frame(plot, width, y + 14)
    parts += axis_elements(plot, axes)
    if plot.diagonal:
        parts.append(_diagonal(axes))
    for mark in plot.marks:
        parts += _mark(mark, axes)
    parts += _labels(plot.marks, axes)
    y = axes.below
    legend, y = _legend(plot, width, y)
    parts += legend
    for note in plot.notes:
        for i, line in enumerate(wrapped(note, width - 16, SMALL + 1)):
            y += LINE - 2
            parts.append(
                f"<text x='{8 if i == 0 else 26}' y='{_n(y)}' font-size='{SMALL - 0.5}' {MONOSPACE} "
                f"xml:space='preserve' {fill('ink')}>{_text(line)}</text>"
            )
    body = f"<g font-family='system-ui, sans-serif' font-size='{FONT}'>{''.join(parts)}</g>"
    return Drawing(width, y + 8, body)


def _mark(mark: Mark, axes: Frame) -> Iterator[str]:
    if isinstance(mark, Line):
        yield _line(mark, axes)
    elif isinstance(mark, Bars):
        yield from _bars(mark, axes)
    elif isinstance(mark, Events):
        yield from _events(mark, axes)
    else:
        yield from _points(mark, axes)


def _line(mark: Line, axes: Frame) -> str:
    places = [
        (axes.x.at(x), axes.y.at(y))
        for x, y in zip(mark.x, mark.y, strict=True)
        if drawable(x, axes.x.log) and drawable(y, axes.y.log)
    ]
    kept: list[tuple[float, float]] = []
    for i, place_ in enumerate(places):
        if not kept or i == len(places) - 1 or math.dist(place_, kept[-1]) > 0.7:
            kept.append(place_)
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in kept)
    more = " stroke-dasharray='2 4'" if mark.dotted else ""
    weight, opacity = (1, " stroke-opacity='0.6'") if mark.faint else (1.6, "")
    return (
        f"<polyline points='{path}' fill='none' stroke-width='{weight}' stroke-linejoin='round'{opacity}{more} "
        f"{stroke(mark.colour)}/>"
    )


def _bars(mark: Bars, axes: Frame) -> Iterator[str]:
    step = abs(axes.x.at(1) - axes.x.at(0))
    zero = axes.y.at(0)
    for i, (height, colour) in enumerate(zip(mark.heights, mark.colours, strict=True)):
        top = axes.y.at(height)
        yield (
            f"<rect x='{_n(axes.x.at(i) - 0.36 * step)}' y='{_n(min(top, zero))}' width='{_n(0.72 * step)}' "
            f"height='{_n(abs(zero - top))}' {fill(colour)}>{_tip(mark.tips, i)}</rect>"
        )


def _events(mark: Events, axes: Frame) -> Iterator[str]:
    _, top, _, bottom = axes.box
    for i, value in enumerate(mark.x):
        x = axes.x.at(value)
        yield (
            f"<line x1='{_n(x)}' y1='{_n(top)}' x2='{_n(x)}' y2='{_n(bottom)}' stroke-dasharray='2 4' "
            f"stroke-width='1.4' {stroke(mark.colour)}>{_tip(mark.tips, i)}</line>"
            f"<text x='{_n(x)}' y='{_n(top - 3)}' font-size='{SMALL}' text-anchor='middle' {fill(mark.colour)}>"
            f"{_text(mark.labels[i])}</text>"
        )


def _points(mark: Points, axes: Frame) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for i, (x, y) in enumerate(zip(mark.x, mark.y, strict=True)):
        if not (drawable(x, axes.x.log) and drawable(y, axes.y.log)):
            continue
        at = axes.x.at(x), axes.y.at(y)
        cell = (int(at[0] // 3), int(at[1] // 3))
        if len(mark.x) > MOST_POINTS and cell in seen:
            continue
        seen.add(cell)
        yield from _error_bars(mark, i, at, axes)
        symbol = _symbol(mark.shape, at, mark.size, mark.colour, _tip(mark.tips, i))
        named = _text(mark.labels[i] if mark.labels else mark.name)
        yield f"<a href='{_text(mark.links[i])}' aria-label='{named}'>{symbol}</a>" if mark.links else symbol


def _error_bars(mark: Points, i: int, at: tuple[float, float], axes: Frame) -> Iterator[str]:
    x, y = at
    path = ""
    if mark.x_intervals:
        low, high = (axes.x.at(v) for v in mark.x_intervals[i])
        path += f"M{_n(low)},{_n(y)}H{_n(high)}M{_n(low)},{_n(y - 4)}v8M{_n(high)},{_n(y - 4)}v8"
    if mark.y_intervals:
        low, high = (axes.y.at(v) for v in mark.y_intervals[i])
        path += f"M{_n(x)},{_n(low)}V{_n(high)}M{_n(x - 4)},{_n(low)}h8M{_n(x - 4)},{_n(high)}h8"
    if path:
        yield f"<path d='{path}' fill='none' stroke-width='1.2' {stroke(mark.colour)}/>"


def _symbol(shape: str, at: tuple[float, float], size: float, colour: str, tip: str = "") -> str:
    x, y = at
    if shape in ("dot", "ring"):
        style = fill(colour) if shape == "dot" else f"fill='none' stroke-width='2' {stroke(colour)}"
        return f"<circle cx='{_n(x)}' cy='{_n(y)}' r='{_n(size)}' {style}>{tip}</circle>"
    outlines = {
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
    }
    corners = " ".join(f"{_n(x + size * dx)},{_n(y + size * dy)}" for dx, dy in outlines[shape])
    return f"<polygon points='{corners}' {fill(colour)}>{tip}</polygon>"


def _labels(marks: Sequence[Mark], axes: Frame) -> Iterator[str]:
    """Texts beside points, each where it covers no other text and no point."""
    wanted: list[PlacedLabel] = []
    extents: list[Rectangle] = []
    for mark in marks:
        if not isinstance(mark, Points):
            continue
        for i, (x, y) in enumerate(zip(mark.x, mark.y, strict=True)):
            if not (drawable(x, axes.x.log) and drawable(y, axes.y.log)):
                continue
            extents += _extents(mark, i, axes)
            if i < len(mark.labels) and mark.labels[i]:
                wanted.append(PlacedLabel(mark.labels[i], axes.x.at(x), axes.y.at(y), mark.size, mark.colour))
    sizes = [(BOLD * text_width(one.text, FONT), float(FONT)) for one in wanted]
    for one, (left, baseline) in zip(wanted, place(wanted, sizes, axes.box, extents), strict=True):
        yield (
            f"<text x='{_n(left)}' y='{_n(baseline)}' font-weight='600' {outlined(one.colour)}>{_text(one.text)}</text>"
        )


def _extents(mark: Points, i: int, axes: Frame) -> Iterator[Rectangle]:
    """The point, and each of its error bars."""
    reach, x, y = 1.3 * mark.size, axes.x.at(mark.x[i]), axes.y.at(mark.y[i])
    yield x - reach, y - reach, x + reach, y + reach
    if mark.x_intervals:
        low, high = sorted(axes.x.at(value) for value in mark.x_intervals[i])
        yield low - 2, y - 4, high + 2, y + 4
    if mark.y_intervals:
        low, high = sorted(axes.y.at(value) for value in mark.y_intervals[i])
        yield x - 4, low - 2, x + 4, high + 2


def _diagonal(axes: Frame) -> str:
    (left, right), (bottom, top) = (axes.x.start, axes.x.end), (axes.y.start, axes.y.end)
    return (
        f"<line x1='{_n(left)}' y1='{_n(bottom)}' x2='{_n(right)}' y2='{_n(top)}' stroke-dasharray='2 4' "
        f"stroke-width='1.4' {stroke('muted')}/>"
    )


def _legend(plot: Plot, width: float, y: float) -> tuple[list[str], float]:
    """The legend's elements beneath `y`, in as many rows as it takes, and where they end."""
    entries = [(m.name, m) for m in plot.marks if m.name]
    diagonal: list[tuple[str, Mark]] = [(plot.diagonal, Line((), (), "muted", dotted=True))] if plot.diagonal else []
    named = [*diagonal, *entries]
    if not named:
        return [], y
    parts, x = [], 8.0
    y += LINE + 4
    for name, mark in named:
        needed = 26 + text_width(name, SMALL) + 16
        if x > 8 and x + needed > width:
            x, y = 8.0, y + LINE
        middle = y - 4
        if isinstance(mark, Events):
            parts.append(
                f"<line x1='{_n(x + 10)}' y1='{_n(middle - 8)}' x2='{_n(x + 10)}' y2='{_n(middle + 6)}' "
                f"stroke-width='1.8' stroke-dasharray='2 4' {stroke(mark.colour)}/>"
            )
        elif isinstance(mark, Line):
            dots = " stroke-dasharray='2 4'" if mark.dotted else ""
            parts.append(
                f"<line x1='{_n(x)}' y1='{_n(middle)}' x2='{_n(x + 20)}' y2='{_n(middle)}' stroke-width='1.8'{dots} "
                f"{stroke(mark.colour)}/>"
            )
        elif isinstance(mark, Bars):
            parts.append(_symbol("square", (x + 10, middle), 5, mark.colours[0]))
        else:
            parts.append(_symbol(mark.shape, (x + 10, middle), min(mark.size, 6), mark.colour))
        parts.append(f"<text x='{_n(x + 26)}' y='{_n(y)}' font-size='{SMALL}' {fill('ink')}>{_text(name)}</text>")
        x += needed
    return parts, y + 4


def _tip(tips: Sequence[str], i: int) -> str:
    return f"<title>{_text(tips[i])}</title>" if i < len(tips) else ""


def _text(text: str) -> str:
    return escape(text, quote=True)


def _n(value: float) -> str:
    """A length: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")
