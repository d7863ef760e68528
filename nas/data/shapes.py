"""Procedural classification: one figure per image, turned, squeezed and partly hidden by bars and noise.

For running the loop without a download. The figure is brighter than the ground, whatever its class: only the outline
depends on the class.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from nas.data.cache import SampleCache
from nas.data.sample import FULL_SIZE, RGB_CHANNELS, Crops, Sample, TaskName
from nas.errors import ConfigError

COUNTS = {"train": 4096, "val": 256, "test": 256}
SMALLEST_PX = 24
SUPERSAMPLING = 3
NOISE = 8.0  # standard deviation, of 255
DARK, BRIGHT = (20, 130), (110, 235)  # of the ground and the figure, in R, G and B each
RADIUS = (0.32, 0.46)  # of the figure, in shorter sides of the image
SQUEEZE = (0.85, 1.0)  # height to width, as a tilted figure shows
TURN = math.radians(20)  # either way
BARS = (0, 2)

Point: TypeAlias = tuple[float, float]
Color: TypeAlias = tuple[int, int, int]


def _arc(radius: float, start: float, end: float, center_x: float = 0.0) -> list[Point]:
    """Points on a circle, from `start` to `end` degrees."""
    angles = np.radians(np.linspace(start, end, 25))
    return [(center_x + radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _corners(count: int, *radii: float) -> list[Point]:
    """`count` corners at even angles, at the radii in turn."""
    angles = [2 * math.pi * i / count for i in range(count)]
    return [(radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a)) for i, a in enumerate(angles)]


def _mirrored(right: Iterable[Point]) -> list[Point]:
    """The figure whose right half is `right`, from top to bottom."""
    half = list(right)
    return [*half, *((-x, y) for x, y in reversed(half))]


OUTLINES: Mapping[str, list[Point]] = {
    "arrow": _mirrored([(0, -1), (0.7, -0.1), (0.25, -0.1), (0.25, 1)]),
    "crescent": [*_arc(0.95, 49, 311), *_arc(0.75, 287.5, 72.5, center_x=0.4)],
    "cross": _mirrored([(0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3), (0.3, 0.95)]),
    "disc": _arc(0.85, 0, 360),
    "half disc": _arc(0.95, 0, 180),
    "heart": _mirrored([(0, -0.35), (0.2, -0.75), (0.55, -0.85), (0.9, -0.55), (0.85, -0.05), (0, 0.95)]),
    "pentagon": _corners(5, 0.95),
    "square": _corners(4, 1.0),
    "star": _corners(10, 1.0, 0.45),
    "triangle": _corners(3, 1.0),
}
"""Closed polygons that nearly fill the unit circle, by class; squeezed, a disc, a pentagon and a square are similar."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """A classification `Dataset` of generated figures; `size` is (H, W), `count` None is the split's default.

    Raises:
        ConfigError: the size is too small to show a figure, or the seed negative.
    """

    split: str
    size: tuple[int, int]
    seed: int = field(default=0, kw_only=True)
    count: int | None = field(default=None, kw_only=True)
    crops: Crops = field(default=FULL_SIZE, kw_only=True)
    name: str = field(default="shapes", init=False)
    task: TaskName = field(default="classification", init=False)
    classes: tuple[str, ...] = field(default=tuple(OUTLINES), init=False)
    video: bool = field(default=False, init=False)
    _cache: SampleCache = field(default_factory=SampleCache, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.size) < SMALLEST_PX:
            raise ConfigError(
                f"shapes of {self.size[0]}x{self.size[1]}: too small to distinguish them;"
                f" give at least {SMALLEST_PX}x{SMALLEST_PX}"
            )
        if self.seed < 0:
            raise ConfigError(f"shapes with seed {self.seed}: give a seed of 0 or more")

    def __len__(self) -> int:
        return COUNTS[self.split] if self.count is None else self.count

    def __getitem__(self, index: int, /) -> Sample:
        """The figure, read-only; IndexError past the end."""
        return self._cache.get(range(len(self))[index], self._draw)

    def original(self, index: int) -> Sample:
        """The figure as indexing gives it: at scales up to 1.25 one that is drawn larger would show little more."""
        return self[index]

    def _draw(self, index: int) -> Sample:
        return draw_shape((self.seed, self.split, index), self.size)


def draw_shape(key: tuple[int, str, int], size: tuple[int, int]) -> Sample:
    """The image of `key` = (seed, split, index) at `size` = (H, W): always the same bytes."""
    seed, split, index = key
    rng = random.Random(f"{seed}/{split}/{index}")  # text seeds are stable
    label = rng.randrange(len(OUTLINES))
    ground, figure = _color(rng, DARK), _color(rng, BRIGHT)
    height, width = (length * SUPERSAMPLING for length in size)
    canvas = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(canvas)
    bars = rng.randint(*BARS)
    behind = rng.randint(0, bars)
    for _ in range(behind):
        _bar(pen, rng, (width, height))
    pen.polygon(_placed(list(OUTLINES.values())[label], rng, (width, height)), fill=figure)
    for _ in range(bars - behind):
        _bar(pen, rng, (width, height))
    small = np.asarray(canvas.resize((size[1], size[0]), Image.Resampling.BOX), np.float32)
    noise = np.random.default_rng([seed, index, *split.encode()]).normal(0, NOISE, (*size, RGB_CHANNELS))
    image = np.clip(np.rint((small + noise) * _light(rng, size)), 0, 255).astype(np.uint8)
    return Sample(image, np.array(label, np.int64))


def _color(rng: random.Random, levels: tuple[int, int]) -> Color:
    return rng.randint(*levels), rng.randint(*levels), rng.randint(*levels)


def _placed(outline: list[Point], rng: random.Random, size: tuple[int, int]) -> list[Point]:
    """The outline squeezed along any axis, turned, and somewhere within `size` = (W, H)."""
    radius = rng.uniform(*RADIUS) * min(size)
    squeeze, axis, turn = rng.uniform(*SQUEEZE), rng.uniform(0, math.pi), rng.uniform(-TURN, TURN)
    x, y = (rng.uniform(radius, length - radius) for length in size)
    points = np.array(outline) @ _rotation(axis) * (1.0, squeeze) @ _rotation(turn) * radius + (x, y)
    return [(float(px), float(py)) for px, py in points]


def _rotation(angle: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _bar(pen: ImageDraw.ImageDraw, rng: random.Random, size: tuple[int, int]) -> None:
    """A thin line across the image."""
    ends = [(rng.uniform(0, size[0]), rng.uniform(0, size[1])) for _ in range(2)]
    color, thickness = _color(rng, rng.choice((DARK, BRIGHT))), rng.uniform(0.01, 0.04) * min(size)
    pen.line(ends, fill=color, width=max(1, round(thickness)))


def _light(rng: random.Random, size: tuple[int, int]) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """A slope of brightness, (H, W, 1)."""
    height, width = size
    across, down = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)
    rows, columns = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)[None]
    return (1 + across * columns + down * rows)[:, :, None]
