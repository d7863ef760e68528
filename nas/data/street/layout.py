"""Which street, seen from where, with what in it: all that chance decides about a scene."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from nas.data.sample import IGNORE
from nas.data.street.canvas import SUPERSAMPLING, Camera, Canvas, Colour, Point, Street, StreetStage, pick
from nas.data.street.furniture import (
    fence_look,
    paint_bollards,
    paint_fence_panel,
    paint_lamp,
    paint_sign,
    paint_tree,
)
from nas.data.street.light import Exposure
from nas.data.street.people import paint_bicyclist, paint_pedestrian
from nas.data.street.traffic import Vehicle, make_vehicle, paint_vehicle

BONNET = ((60, 60, 64), (150, 152, 155), (120, 40, 44))


@dataclass(frozen=True)
class Painting:
    """A thing `distance_m` away and what paints it; the farthest is painted first."""

    distance_m: float
    paint: Callable[[], None]


def choose_camera(rng: random.Random, size: tuple[int, int]) -> Camera:
    """A dashboard camera for a sample of `size` = (H, W)."""
    height, width = (length * SUPERSAMPLING for length in size)
    return Camera(
        focal_px=rng.uniform(0.62, 0.95) * math.sqrt(width * height * 4 / 3),
        centre_px=rng.uniform(0.36, 0.64) * width,
        horizon_px=rng.uniform(0.40, 0.54) * height,
        height_m=rng.uniform(1.3, 1.9),
        bend=rng.choice((0.0, rng.uniform(-0.004, 0.004))),
    )


def choose_street(rng: random.Random) -> Street:
    """Two to four lanes with the camera in the middle of one of those on its side."""
    lanes = rng.choice((2, 2, 3, 4))
    lane_m = rng.uniform(2.9, 3.7)
    own = rng.choice((-1, 1)) * rng.uniform(0.1, 0.5) * lane_m * (lanes - 1)
    half = lanes * lane_m / 2
    shade = rng.choice((0, rng.randint(60, 150)))
    sun = rng.choice((-1, 1)) * rng.uniform(0.4, 1.6)
    return Street(-half - own, half - own, rng.uniform(1.6, 4.0), sun, shade)


def choose_exposure(rng: random.Random) -> Exposure:
    """Noon to dusk, warm or cold, sharp or soft."""
    bright, warm = rng.uniform(0.6, 1.15), rng.gauss(0, 0.07)
    return Exposure(
        gain=(bright * (1 + warm), bright * (1 + rng.gauss(0, 0.02)), bright * (1 - warm)),
        contrast=rng.uniform(0.75, 1.2),
        noise=rng.uniform(1.0, 7.0),
        blurred=rng.random() < 0.3,
        tilt=(rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2)),
    )


def choose_things(stage: StreetStage) -> list[Painting]:
    """Everything on the street, farthest first."""
    things = [*_furniture(stage), *_fences(stage), *_vehicles(stage), *_people(stage)]
    return sorted(things, key=lambda thing: -thing.distance_m)


def _away(rng: random.Random, nearest: float, farthest: float) -> float:
    """A distance, log-uniform: what is near is rarer on a street but larger in the picture."""
    return float(nearest * (farthest / nearest) ** rng.random())


def _thing(paint: Callable[[StreetStage, float, float], None], stage: StreetStage, place: Point) -> Painting:
    return Painting(place[1], lambda: paint(stage, *place))


def _furniture(stage: StreetStage) -> list[Painting]:
    rng, street, things = stage.rng, stage.street, []
    for side in (-1, 1):
        kerb, wall = street.kerb(side) + side * 0.4, street.wall(side)
        spacing, z = rng.uniform(9, 22), rng.uniform(4, 14)
        if rng.random() < 0.7:
            while z < 70:
                things.append(_thing(paint_lamp, stage, (kerb, z)))
                z += spacing
        for _ in range(rng.choice((0, 1, 2, 4))):
            things.append(_thing(paint_tree, stage, (rng.uniform(kerb, wall), _away(rng, 7, 60))))
        for _ in range(rng.choice((0, 1, 2))):
            things.append(_thing(paint_sign, stage, (kerb + side * rng.uniform(0, 0.8), _away(rng, 3.6, 16))))
        if rng.random() < 0.25:
            things.append(_thing(paint_bollards, stage, (kerb, _away(rng, 4, 12))))
    return things


def _fences(stage: StreetStage) -> list[Painting]:
    rng, street, things = stage.rng, stage.street, []
    for side in (-1, 1):
        if rng.random() > 0.5:
            continue
        x = rng.choice((street.wall(side), street.wall(side), street.kerb(side) + side * 0.2))
        look, panel = fence_look(stage), 2.5
        z = rng.uniform(2.0, 9.0)
        for _ in range(rng.randint(3, 9)):
            things.append(_fence_panel(stage, x, (z, z + panel), look))
            z += panel
    return things


def _fence_panel(stage: StreetStage, x: float, span: tuple[float, float], look: tuple[Colour, float, bool]) -> Painting:
    return Painting(span[0], lambda: paint_fence_panel(stage, x, span, look))


def _vehicles(stage: StreetStage) -> list[Painting]:
    rng, street, things = stage.rng, stage.street, []
    places: list[tuple[Point, bool]] = []
    for side in (-1, 1):  # parked along the kerb
        z = _away(rng, 5, 25)
        for _ in range(rng.choice((0, 0, 1, 2, 4))):
            places.append(((street.kerb(side) - side * 1.05, z), False))
            z += rng.uniform(5.5, 9.0)
    for _ in range(rng.choice((0, 1, 1, 2))):  # in traffic
        z = _away(rng, 7, 45)
        places.append(((rng.uniform(street.left + 2.5, street.right - 2.5), z), False))
    if rng.random() < 0.15:
        places.append(((rng.uniform(street.left, street.right), _away(rng, 9, 30)), True))
    for (x, z), across in places:
        vehicle = make_vehicle(stage, x, z, across=across)
        things.append(_vehicle(stage, vehicle))
    return things


def _vehicle(stage: StreetStage, vehicle: Vehicle) -> Painting:
    return Painting(vehicle.nearest, lambda: paint_vehicle(stage, vehicle))


def _people(stage: StreetStage) -> list[Painting]:
    rng, street, things = stage.rng, stage.street, []
    for _ in range(rng.choice((0, 2, 3, 4, 6, 8))):
        side = rng.choice((-1, 1))
        x = rng.uniform(street.kerb(side) + side * 0.3, street.wall(side) - side * 0.3)
        z = _away(rng, 3.2, 16)
        if rng.random() < 0.2:  # crossing the road
            x, z = rng.uniform(street.left, street.right), _away(rng, 5, 14)
        things.append(_thing(paint_pedestrian, stage, (x, z)))
    for _ in range(rng.choice((0, 1, 1, 2))):
        side = rng.choice((-1, 1))
        x = street.kerb(side) - side * rng.uniform(0.5, 2.5)
        things.append(_thing(paint_bicyclist, stage, (x, _away(rng, 4, 16))))
    return things


def paint_bonnet(canvas: Canvas, rng: random.Random) -> None:
    """The camera's own car at the bottom of the picture: unlabelled, as in recorded sets."""
    height, width = canvas.size
    centre, radii = (
        (width * rng.uniform(0.4, 0.6), height * 1.05),
        (width * 0.55, height * rng.uniform(0.08, 0.14)),
    )
    canvas.ellipse(centre, radii, pick(rng, BONNET), IGNORE)
