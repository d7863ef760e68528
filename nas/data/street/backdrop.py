"""What a street is set in: sky, skyline, road, pavements and the rows of buildings or greenery."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from nas.data.street.canvas import Canvas, Colour, Point, StreetStage, Thing, mixed, pick, shaded

FARTHEST_M = 110.0
GROUND_STEPS_M = (0.4, 3.0, 6.0, 10.0, 16.0, 25.0, 40.0, 65.0, FARTHEST_M, 400.0)

SKY = ((95, 145, 210), (165, 190, 215), (205, 208, 212), (228, 178, 138), (125, 132, 142), (242, 242, 240))
ROAD = ((95, 95, 98), (68, 68, 74), (126, 122, 118), (104, 95, 88), (145, 145, 146))
PAVEMENT = ((152, 146, 140), (118, 116, 114), (164, 128, 110), (98, 97, 95), (176, 170, 160), (130, 102, 86))
GREEN = ((52, 86, 42), (82, 112, 52), (36, 60, 36), (132, 112, 48), (148, 84, 42), (96, 96, 66), (70, 72, 52))
BUILDING = (
    (150, 82, 62),
    (190, 170, 140),
    (202, 201, 196),
    (112, 112, 116),
    (92, 72, 62),
    (215, 195, 150),
    (72, 82, 96),
    (120, 130, 102),
    (62, 62, 66),
)
GLASS = ((40, 46, 56), (92, 112, 132), (165, 180, 195), (58, 50, 44), (210, 190, 130))
MARKING = ((225, 225, 222), (205, 180, 70))


def paint_sky(stage: StreetStage) -> None:
    """A gradient from the haze at the horizon to the sky's colour, clouds, and a far skyline."""
    canvas, rng = stage.canvas, stage.rng
    height, width = canvas.size
    top, horizon = pick(rng, SKY), canvas.camera.horizon_px
    bands = 12
    for i in range(bands):
        y = horizon * i / bands
        colour = mixed(top, canvas.haze, (i / bands) ** 1.5)
        canvas.box((0, y), (width, horizon * (i + 1) / bands), colour, Thing.SKY)
    cloud = pick(rng, ((238, 238, 238), (150, 154, 162), (225, 205, 195)))
    for _ in range(rng.choice((0, 0, 6, 12))):
        centre = (rng.uniform(0, width), rng.uniform(0, 0.8) * horizon)
        radii = (rng.uniform(0.03, 0.14) * width, rng.uniform(0.01, 0.04) * height)
        canvas.ellipse(centre, radii, mixed(cloud, canvas.haze, rng.uniform(0.3, 0.8)), Thing.SKY)
    _paint_skyline(stage, width, horizon)


def _paint_skyline(stage: StreetStage, width: int, horizon: float) -> None:
    canvas, rng, x = stage.canvas, stage.rng, 0.0
    while x < width:
        step = rng.uniform(0.03, 0.12) * width
        top = horizon - rng.uniform(0.02, 0.10) * canvas.size[0]
        if rng.random() < 0.5:
            colour = canvas.at(pick(rng, BUILDING), FARTHEST_M)
            canvas.box((x, top), (x + step, horizon + 1), colour, Thing.BUILDING)
        else:
            colour = canvas.at(pick(rng, GREEN), FARTHEST_M)
            canvas.ellipse((x + step / 2, horizon), (step * 0.7, horizon - top), colour, Thing.TREE)
        x += step


def paint_ground(stage: StreetStage, green: tuple[bool, bool]) -> None:
    """Pavement or grass to the horizon, then pavements, road and its markings; `green`: left, right."""
    canvas, rng, street = stage.canvas, stage.rng, stage.street
    paving, road = pick(rng, PAVEMENT), pick(rng, ROAD)
    for side, grassy in zip((-1, 1), green, strict=True):
        wall, kerb = street.wall(side), street.kerb(side)
        if grassy:
            _strip(canvas, (wall, side * 2000.0), pick(rng, GREEN), Thing.TREE)
        else:
            _strip(canvas, (wall, side * 2000.0), shaded(paving, 0.9), Thing.PAVEMENT)
        _strip(canvas, (kerb, wall), paving, Thing.PAVEMENT)
        _strip(canvas, (kerb, kerb + side * 0.18), shaded(paving, rng.uniform(0.8, 1.3)), Thing.PAVEMENT)
        for z in range(2, 22, 2):
            corners = [(kerb, 0.0, z), (wall, 0.0, z), (wall, 0.0, z + 0.06), (kerb, 0.0, z + 0.06)]
            canvas.face(corners, shaded(paving, 0.85), None)
    _strip(canvas, (street.left, street.right), road, Thing.ROAD)
    _paint_markings(stage, road)


def _strip(canvas: Canvas, edges: tuple[float, float], colour: Colour, label: int | None) -> None:
    """A band of ground between two x from the camera to the horizon, fading with distance."""
    near, *rest = GROUND_STEPS_M
    for far in rest:
        corners = [(edges[0], near), (edges[1], near), (edges[1], far), (edges[0], far)]
        points = [canvas.camera.project(x, 0.0, z) for x, z in corners]
        canvas.polygon(points, canvas.at(colour, (near + far) / 2), label)
        near = far


def _paint_markings(stage: StreetStage, road: Colour) -> None:
    canvas, rng, street = stage.canvas, stage.rng, stage.street
    paint = mixed(pick(rng, MARKING), road, rng.uniform(0.0, 0.5))
    lanes = max(2, round((street.right - street.left) / 3.6))
    dash, gap = rng.choice(((3.0, 4.0), (2.0, 2.0), (6.0, 0.0)))
    for lane in range(1, lanes):
        x = street.left + (street.right - street.left) * lane / lanes
        z = rng.uniform(1.5, 4.0)
        while z < 60:
            _mark(canvas, (x - 0.07, x + 0.07), (z, z + dash), paint)
            z += dash + gap
    if rng.random() < 0.5:  # a line along each kerb
        for side in (-1, 1):
            x, z = street.kerb(side) - side * 0.3, 1.5
            while z < 60:
                _mark(canvas, (x - 0.05, x + 0.05), (z, z + 6), paint)
                z += 6
    if rng.random() < 0.25:  # a zebra crossing
        z, x = rng.uniform(5, 14), street.left + 0.4
        while x < street.right - 0.4:
            _mark(canvas, (x, x + 0.5), (z, z + 3), paint)
            x += 1.0
    for _ in range(rng.randrange(4)):  # patches of other asphalt
        x, z = rng.uniform(street.left, street.right - 1.5), rng.uniform(3, 20)
        _mark(
            canvas,
            (x, x + rng.uniform(0.5, 1.5)),
            (z, z + rng.uniform(1, 5)),
            shaded(road, rng.uniform(0.75, 1.2)),
        )


def _mark(canvas: Canvas, across: tuple[float, float], along: tuple[float, float], colour: Colour) -> None:
    (left, right), (near, far) = across, along
    canvas.face([(left, 0.0, near), (right, 0.0, near), (right, 0.0, far), (left, 0.0, far)], colour, None)


@dataclass(frozen=True)
class House:
    """A block beside the street: its wall at x from `near` to `far`, `height` high, going outwards."""

    side: int
    x: float
    near: float
    far: float
    height: float


def paint_row(stage: StreetStage, side: int, *, built: float) -> None:
    """One side of the street from far to near: houses with probability `built`, hedges and gaps between."""
    rng, street = stage.rng, stage.street
    setback = rng.choice((0.0, 0.3, 1.5, 3.0))
    edges = [rng.uniform(2.0, 9.0)]
    while edges[-1] < FARTHEST_M:
        edges.append(edges[-1] + rng.uniform(6.0, 16.0) * (1 + edges[-1] / 60))
    storey_heights = [rng.uniform(4.5, 9.0), rng.uniform(6.0, 18.0)]
    for near, far in reversed(list(pairwise(edges))):
        x = street.wall(side) + side * setback
        if rng.random() < built:
            height = rng.uniform(*storey_heights) if rng.random() < 0.8 else rng.uniform(3.5, 24)
            paint_house(stage, House(side, x, near, far, height))
            if street.shade and street.sun * side < 0:  # the sun stands behind this row
                reach = x + street.sun * height
                corners = [(x, 0.0, near), (reach, 0.0, near), (reach, 0.0, far), (x, 0.0, far)]
                stage.canvas.cast(corners, street.shade)
        elif rng.random() < 0.7:
            paint_hedge(stage, x + side * rng.uniform(0.5, 3.0), near, far)


def paint_house(stage: StreetStage, house: House) -> None:
    """Wall along the street, end wall towards the camera, roof, windows, ground floor."""
    canvas, rng = stage.canvas, stage.rng
    colour = pick(rng, BUILDING)
    lit = 1.1 if stage.street.sun * house.side > 0 else 0.8
    side, x, near, far, height = house.side, house.x, house.near, house.far, house.height
    outer = x + side * rng.uniform(7, 12)
    roof = rng.uniform(1.5, 3.5) if rng.random() < 0.5 else 0.0
    if roof:
        ridge, slate = (x + outer) / 2, pick(rng, ((70, 62, 62), (110, 72, 58), (92, 96, 104)))
        gable = [(x, height, near), (ridge, height + roof, near), (outer, height, near)]
        slope = [
            (x, height, near),
            (ridge, height + roof, near),
            (ridge, height + roof, far),
            (x, height, far),
        ]
        canvas.face(slope, slate, Thing.BUILDING)
        canvas.face(gable, shaded(colour, 0.95), Thing.BUILDING)
    end = [(x, 0.0, near), (outer, 0.0, near), (outer, height, near), (x, height, near)]
    wall = [(x, 0.0, near), (x, 0.0, far), (x, height, far), (x, height, near)]
    canvas.face(end, shaded(colour, 1.9 - lit), Thing.BUILDING)
    canvas.face(wall, shaded(colour, lit), Thing.BUILDING)
    if near < 45:
        _paint_windows(stage, house, shaded(colour, lit))


def _paint_windows(stage: StreetStage, house: House, wall: Colour) -> None:
    canvas, rng = stage.canvas, stage.rng
    glass, trim = pick(rng, GLASS), shaded(wall, rng.choice((0.75, 1.25)))
    pitch = rng.uniform(2.2, 4.0)
    share = rng.uniform(0.35, 0.75)
    columns = [house.near + pitch * (i + 0.5) for i in range(int((house.far - house.near) / pitch))]
    floors = [3.2 + 3.0 * i for i in range(int((house.height - 3.4) / 3.0) + 1) if 3.2 + 3.0 * i + 2 < house.height]
    width = canvas.size[1]
    for z in columns:
        half = pitch * share / 2
        spans = [(canvas.camera.project(house.x, 0.0, zz)[0], zz) for zz in (z - half, z + half)]
        if max(u for u, _ in spans) < 0 or min(u for u, _ in spans) > width:
            continue
        pane = canvas.at(shaded(glass, rng.uniform(0.75, 1.25)), z)
        for sill in floors:
            canvas.polygon(_pane(canvas, spans, sill, 1.7), pane, None)
        if rng.random() < 0.7:  # a shop window or a door
            canvas.polygon(_pane(canvas, spans, 0.3 if share > 0.5 else 0.0, 2.2), canvas.at(glass, z), None)
    canvas.face(_band(house, min(3.0, house.height), 0.25), trim, None)
    canvas.face(_band(house, house.height, 0.3), trim, None)


def _pane(canvas: Canvas, spans: list[Point], sill: float, height: float) -> list[Point]:
    camera = canvas.camera
    points = []
    for (u, z), (low, high) in zip(spans, ((sill, sill + height), (sill + height, sill)), strict=True):
        scale = camera.focal_px / z
        points += [(u, camera.horizon_px + (camera.height_m - y) * scale) for y in (low, high)]
    return points


def _band(house: House, top: float, height: float) -> list[tuple[float, float, float]]:
    low = top - height
    return [
        (house.x, low, house.near),
        (house.x, low, house.far),
        (house.x, top, house.far),
        (house.x, top, house.near),
    ]


def paint_hedge(stage: StreetStage, x: float, near: float, far: float) -> None:
    """Bushes along the street."""
    canvas, rng = stage.canvas, stage.rng
    colour = pick(rng, GREEN)
    height = rng.uniform(0.8, 3.5)
    z = far
    while z > near:
        centre = canvas.camera.project(x, height * 0.4, z)
        radius = canvas.camera.px(height * rng.uniform(0.5, 0.8), z)
        canvas.ellipse(centre, (radius * 1.3, radius), canvas.at(shaded(colour, rng.uniform(0.75, 1.2)), z), Thing.TREE)
        z -= height * 0.6 + z * 0.04
