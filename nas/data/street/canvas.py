"""A pinhole camera above a street, and a canvas that paints image and label with one geometry.

World coordinates are metres: x to the right of the camera, y above the ground, z ahead.
Screen coordinates are pixels of the canvas, which is SUPERSAMPLING times the sample.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from PIL import Image, ImageDraw

SUPERSAMPLING = 2
NEAREST_M = 0.4  # what is nearer is projected as if it stood there
THINNEST_PX = float(SUPERSAMPLING)  # so that every stroke reaches a pixel of the reduced label

Colour = tuple[int, int, int]
Point = tuple[float, float]
Point3 = tuple[float, float, float]


class Thing(IntEnum):
    """The classes in CamVid's order: a member's value is its label."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the street.

    Attributes:
        focal_px: focal length.
        centre_px: x of the vanishing point.
        horizon_px: y of the vanishing point.
        height_m: above the ground.
        bend: sideways shift of the street in metres per squared metre of distance.
    """

    focal_px: float
    centre_px: float
    horizon_px: float
    height_m: float
    bend: float

    def project(self, x: float, y: float, z: float) -> Point:
        z = max(z, NEAREST_M)
        scale = self.focal_px / z
        return self.centre_px + (x + self.bend * z * z) * scale, self.horizon_px + (self.height_m - y) * scale

    def px(self, length_m: float, z: float) -> float:
        """How long `length_m` appears at distance `z`, at least the thinnest stroke."""
        return max(THINNEST_PX, length_m * self.focal_px / max(z, NEAREST_M))


def shaded(colour: Colour, factor: float) -> Colour:
    """`colour` lighter (factor > 1) or darker."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with `share` (0 to 1) of `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def pick(rng: random.Random, palette: Sequence[Colour], spread: float = 18) -> Colour:
    """A colour of the palette, varied in lightness and a little in hue."""
    light = rng.gauss(0, spread)
    red, green, blue = (min(250, max(6, round(c + light + rng.uniform(-8, 8)))) for c in rng.choice(palette))
    return red, green, blue


class Canvas:
    """Paints image and label together; a shadow is painted on a mask of its own and only darkens ground.

    `label=None` paints a detail: the image changes, the label stays.
    """

    def __init__(self, size: tuple[int, int], camera: Camera, haze: Colour, haze_m: float) -> None:
        """`size` is (height, width) of the canvas; things fade into `haze` over a distance of `haze_m`."""
        height, width = size
        self.size = size
        self.camera = camera
        self.haze, self.haze_m = haze, haze_m
        self.image = Image.new("RGB", (width, height), haze)
        self.label = Image.new("L", (width, height), int(Thing.SKY))
        self.shadow = Image.new("L", (width, height), 0)
        self._image = ImageDraw.Draw(self.image)
        self._label = ImageDraw.Draw(self.label)
        self._shadow = ImageDraw.Draw(self.shadow)

    def at(self, colour: Colour, z: float) -> Colour:
        """How `colour` looks from `z` metres away."""
        return mixed(colour, self.haze, 1 - math.exp(-max(z, 0) / self.haze_m))

    def polygon(self, points: Sequence[Point], colour: Colour, label: int | None) -> None:
        self._image.polygon(points, colour)
        if label is not None:
            self._label.polygon(points, int(label))

    def box(self, corner: Point, opposite: Point, colour: Colour, label: int | None) -> None:
        """An upright rectangle between two corners, at least the thinnest stroke wide and high."""
        left, right = _stretched(corner[0], opposite[0])
        top, bottom = _stretched(corner[1], opposite[1])
        self._image.rectangle((left, top, right, bottom), colour)
        if label is not None:
            self._label.rectangle((left, top, right, bottom), int(label))

    def ellipse(self, centre: Point, radii: Point, colour: Colour, label: int | None) -> None:
        (x, y), (across, down) = centre, (max(radii[0], 1.0), max(radii[1], 1.0))
        bounds = (x - across, y - down, x + across, y + down)
        self._image.ellipse(bounds, colour)
        if label is not None:
            self._label.ellipse(bounds, int(label))

    def stroke(self, start: Point, end: Point, width_px: float, brush: tuple[Colour, int | None]) -> None:
        """A straight limb of at least the thinnest width; `brush` is (colour, label)."""
        along_x, along_y = end[0] - start[0], end[1] - start[1]
        length = math.hypot(along_x, along_y) or 1.0
        half = max(width_px, THINNEST_PX) / 2 / length
        dx, dy = -along_y * half, along_x * half
        corners = [
            (start[0] + dx, start[1] + dy),
            (end[0] + dx, end[1] + dy),
            (end[0] - dx, end[1] - dy),
            (start[0] - dx, start[1] - dy),
        ]
        self.polygon(corners, *brush)

    def face(self, corners: Sequence[Point3], colour: Colour, label: int | None) -> None:
        """A flat shape in the world, in the colour as seen from its nearest corner."""
        nearest = min(corner[2] for corner in corners)
        self.polygon([self.camera.project(*c) for c in corners], self.at(colour, nearest), label)

    def cast(self, corners: Sequence[Point3], depth: int) -> None:
        """A shadow on the ground, of `depth` 0 (none) to 255 (black)."""
        self._shadow.polygon([self.camera.project(*c) for c in corners], depth)


def _stretched(a: float, b: float) -> Point:
    low, high = min(a, b), max(a, b)
    return low, max(high, low + THINNEST_PX - 1)  # Pillow's rectangles include both ends


@dataclass(frozen=True)
class Street:
    """The cross-section: road from `left` to `right`, pavements of `pavement_m`, then what stands beside.

    Attributes:
        left: x of the road's left edge.
        right: x of the road's right edge.
        pavement_m: width of each pavement.
        sun: metres of shadow to the right per metre of height; negative falls to the left.
        shade: depth of shadows, 0 to 255; 0 under an overcast sky.
    """

    left: float
    right: float
    pavement_m: float
    sun: float
    shade: int

    def kerb(self, side: int) -> float:
        """x of the kerb at side -1 (left) or 1 (right)."""
        return self.left if side < 0 else self.right

    def wall(self, side: int) -> float:
        """x where the pavement ends."""
        return self.kerb(side) + side * self.pavement_m


@dataclass(frozen=True)
class StreetStage:
    """What every painter needs: chance, canvas and street."""

    rng: random.Random
    canvas: Canvas
    street: Street

    def shadow(self, x: float, z: float, height: float, width: float) -> None:
        """The shadow on the ground of something upright at (x, z)."""
        if self.street.shade and z < 40:
            tip = x + self.street.sun * height
            half = width / 2
            near, far = z - half, z + half
            corners = [(x, 0.0, near), (tip, 0.0, near), (tip, 0.0, far), (x, 0.0, far)]
            self.canvas.cast(corners, self.street.shade)
