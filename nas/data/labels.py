"""Label maps of every pixel: files that store class indices, or colours, become classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.images import read_colors, read_values
from nas.errors import DataError

INVALID = -1  # in a lookup table of `label_table`: a value that the layout does not define
VALUES = 256

Color = tuple[int, int, int]


def label_table(classes: Mapping[int, int]) -> NDArray[np.int16]:
    """int16 (256,): the class of each stored label value, INVALID where `classes` does not name it."""
    table = np.full(VALUES, INVALID, np.int16)
    table[list(classes)] = list(classes.values())
    return table


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours that label files store in place of values.

    Attributes:
        values: the value that each colour stands for.
        source: where the colours are from, for errors.
        always: also files with a palette or of grey hold colours, not values.
    """

    values: Mapping[Color, int]
    source: str
    always: bool = False
    _codes: NDArray[np.uint32] = field(init=False, repr=False)
    _values: NDArray[np.uint8] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_code = sorted((_code(color), value) for color, value in self.values.items())
        object.__setattr__(self, "_codes", np.array([code for code, _ in by_code], np.uint32))
        object.__setattr__(self, "_values", np.array([value for _, value in by_code], np.uint8))

    def values_of(self, colors: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """uint8 (H, W) of colours (H, W, 3); `DataError` for a colour that is not in the palette."""
        wide = colors.astype(np.uint32)
        codes = wide[:, :, 0] << 16 | wide[:, :, 1] << 8 | wide[:, :, 2]
        place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        wrong = self._codes[place] != codes
        if wrong.any():
            first = colors[wrong][0].tolist()
            raise DataError(
                f"{path}: colour {first[0]},{first[1]},{first[2]} and others in {int(wrong.sum())} pixels,"
                f" {self.source} has {len(self.values)} colours without them; name each colour there, or store class"
                " indices, not colours"
            )
        return self._values[place]


def _code(color: Color) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def stored_values(path: Path, palette: Palette | None) -> NDArray[np.uint8]:
    """The values of a label file, uint8 (H, W).

    Raises:
        DataError: there is no image, it holds colours and there is no palette, or one that lacks them.
    """
    if palette is not None and palette.always:
        return palette.values_of(read_colors(path), path)
    values = read_values(path)
    if values.ndim == 2:
        return values
    if palette is None:
        raise DataError(
            f"{path}: a label must be 8-bit with one channel, this one is RGB; store class indices, not colours"
        )
    return palette.values_of(values, path)


def classes_of(stored: NDArray[np.uint8], table: NDArray[np.int16], path: Path, name: str) -> NDArray[np.uint8]:
    """The class of each stored value by the table of the data set `name`; `DataError` for one that it lacks."""
    mapped = table[stored]
    if (wrong := stored[mapped == INVALID]).size:
        known = ", ".join(spans(np.flatnonzero(table != INVALID).tolist()))
        raise DataError(
            f"{path}: label value {int(wrong[0])} in {wrong.size} pixels, {name} knows {known};"
            " use the official label files or map the values"
        )
    return mapped.astype(np.uint8)


def spans(values: Sequence[int]) -> list[str]:
    """Sorted integers as spans: [0, 1, 2, 255] -> ["0-2", "255"]."""
    known = set(values)
    starts = [v for v in values if v - 1 not in known]
    ends = [v for v in values if v + 1 not in known]
    return [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
