"""Procedural street scenes with exact labels, in CamVid's classes: a data set that needs no download.

A scene is a pure function of (seed, split, index, size). Colours of classes overlap from scene to scene (a grey car on
a grey road, a green sign before a tree), so that only shape and context distinguish them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from nas.data.cache import SampleCache
from nas.data.camvid_colors import CLASSES
from nas.data.files import resized
from nas.data.sample import FULL_SIZE, Crops, Sample, TaskName
from nas.data.street.backdrop import paint_ground, paint_row, paint_sky
from nas.data.street.canvas import SUPERSAMPLING, Canvas, StreetStage, pick
from nas.data.street.layout import (
    choose_camera,
    choose_exposure,
    choose_street,
    choose_things,
    paint_bonnet,
)
from nas.data.street.light import develop
from nas.errors import ConfigError

COUNTS = {"train": 256, "val": 64, "test": 64}
SMALLEST_PX = 32
DETAIL = 2  # the highest scale of training crops; at 112x144 a scene takes 12 ms, drawn at that size 7 ms
GRASSY = 0.3  # how likely a side of the street is green rather than paved
BONNET_SHOWN = 0.12
HAZE = ((205, 212, 220), (225, 222, 215), (235, 215, 190), (170, 176, 184))


@dataclass(frozen=True, eq=False)
class Scenes:
    """A `Dataset` of generated scenes; `size` is (H, W), `count` None is the split's default.

    As a camera's, pictures are taken at a higher resolution, DETAIL times the size, and resized to what is deployed:
    one drawn at that size is sharper than any training crop, which costs a demo's teacher half a point of mIoU.

    Raises:
        ConfigError: the size is too small to show a street, or the seed negative.
    """

    split: str
    size: tuple[int, int]
    seed: int = field(default=0, kw_only=True)
    count: int | None = field(default=None, kw_only=True)
    crops: Crops = field(default=FULL_SIZE, kw_only=True)
    name: str = field(default="scenes", init=False)
    task: TaskName = field(default="segmentation", init=False)
    classes: tuple[str, ...] = field(default=CLASSES, init=False)
    video: bool = field(default=False, init=False)
    _cache: SampleCache = field(default_factory=SampleCache, init=False, repr=False)
    _originals: SampleCache = field(default_factory=SampleCache, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.size) < SMALLEST_PX:
            raise ConfigError(
                f"scenes of {self.size[0]}x{self.size[1]}: too small to show a street;"
                f" give at least {SMALLEST_PX}x{SMALLEST_PX}"
            )
        if self.seed < 0:
            raise ConfigError(f"scenes with seed {self.seed}: give a seed of 0 or more")

    def __len__(self) -> int:
        return COUNTS[self.split] if self.count is None else self.count

    def __getitem__(self, index: int, /) -> Sample:
        """The scene, read-only; IndexError past the end."""
        return self._cache.get(range(len(self))[index], lambda i: resized(self.original(i), self.size))

    def original(self, index: int) -> Sample:
        """The scene at DETAIL times the size, read-only; IndexError past the end."""
        return self._originals.get(range(len(self))[index], self._draw)

    def _draw(self, index: int) -> Sample:
        height, width = self.size
        return draw_scene((self.seed, self.split, index), (DETAIL * height, DETAIL * width))


def draw_scene(key: tuple[int, str, int], size: tuple[int, int]) -> Sample:
    """The scene of `key` = (seed, split, index) at `size` = (H, W): always the same bytes.

    Sizes of one aspect ratio show the same street: the layout comes from `random`, whose text seeds are
    stable, and only texture and noise are drawn for each pixel.
    """
    seed, split, index = key
    rng = random.Random(f"{seed}/{split}/{index}")
    height, width = (length * SUPERSAMPLING for length in size)
    canvas = Canvas((height, width), choose_camera(rng, size), pick(rng, HAZE, 10), rng.uniform(60, 400))
    stage = StreetStage(rng, canvas, choose_street(rng))
    grassy = (rng.random() < GRASSY, rng.random() < GRASSY)
    paint_sky(stage)
    paint_ground(stage, grassy)
    for side, green in zip((-1, 1), grassy, strict=True):
        paint_row(stage, side, built=0.25 if green else 0.85)
    for thing in choose_things(stage):
        thing.paint()
    if rng.random() < BONNET_SHOWN:
        paint_bonnet(canvas, rng)
    noise = np.random.default_rng([seed, index, *split.encode()])
    return Sample(*develop(canvas, choose_exposure(rng), noise))
