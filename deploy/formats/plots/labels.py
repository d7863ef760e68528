"""Where the text beside a point goes, so that it covers no other text, stays within the axes and is near its point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Rectangle = tuple[float, float, float, float]
"""left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class PlacedLabel:
    """A text for the point at (x, y), which has a radius of `size` pixels."""

    text: str
    x: float
    y: float
    size: float
    colour: str


def place(
    wanted: Sequence[PlacedLabel], sizes: Sequence[tuple[float, float]], within: Rectangle, marks: Sequence[Rectangle]
) -> list[tuple[float, float]]:
    """(left, baseline) for each text of (width, height): the first place around its point that is free of `marks`.

    Where none is free, the one that covers the least.
    """
    taken = list(marks)
    found = []
    for one, (width, height) in zip(wanted, sizes, strict=True):
        candidates = [
            (one.x + dx - width * (0.5 - side), one.y + dy - height / 2)
            for gap in (one.size + 4, one.size + 14, one.size + 26)
            for dx, dy, side in (
                (gap, 0, 0.5), (-gap, 0, -0.5), (gap * 0.7, gap, 0.5), (gap * 0.7, -gap, 0.5),
                (-gap * 0.7, gap, -0.5), (-gap * 0.7, -gap, -0.5), (0, gap + 5, 0), (0, -gap - 5, 0),
            )
        ]  # fmt: skip
        boxes = [(left, top, left + width, top + height) for left, top in candidates]
        best = min(boxes, key=lambda box: _outside(box, within) + sum(_shared(box, other) for other in taken))
        taken.append(best)
        found.append((best[0], best[3] - 0.2 * height))
    return found


def _shared(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Rectangle, within: Rectangle) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _shared(box, within)
