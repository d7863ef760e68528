"""A colour for each class: far apart for neighbours, the same in every picture of a run."""

from __future__ import annotations

import colorsys

VOID = 255  # the palette's entry for pixels without a label
GOLDEN = 0.618034  # of a turn from one hue to the next: successive ones stay apart


def colour(label: int) -> tuple[int, int, int]:
    """RGB, 0 to 255."""
    value, saturation = ((0.95, 0.65), (0.7, 0.85), (0.85, 0.4))[label % 3]
    red, green, blue = colorsys.hsv_to_rgb((0.58 + label * GOLDEN) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def hexadecimal(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour(label))


def palette(classes: int) -> list[int]:
    """Of a picture with 256 entries: the classes, and black for VOID and what is none."""
    entries = [colour(label) if label < classes else (0, 0, 0) for label in range(256)]
    return [value for entry in entries for value in entry]


VERDICTS = (236, 239, 242, 45, 125, 70, 192, 51, 74, 120, 120, 120)
"""RGB of: both say the same; the model that is shown is right; the reference is; neither."""
