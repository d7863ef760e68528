"""Cars and vans: a body and a cabin in perspective, along the street or across it."""

from __future__ import annotations

from dataclasses import dataclass

from nas.data.street.canvas import Colour, Point, Point3, StreetStage, Thing, pick, shaded

BODY = (
    (30, 32, 36),
    (90, 92, 96),
    (165, 167, 170),
    (232, 232, 230),
    (160, 30, 34),
    (32, 62, 130),
    (40, 90, 62),
    (205, 175, 60),
    (112, 82, 60),
    (70, 112, 150),
)
WINDOW = ((38, 44, 52), (72, 86, 100), (130, 146, 160), (24, 24, 26))
TYRE = (24, 24, 26)


@dataclass(frozen=True)
class Vehicle:
    """A vehicle with its middle on the ground at (x, z), in metres.

    Attributes:
        x: to the right of the camera.
        z: ahead of the camera.
        across: it stands across the street, so that its flank is visible.
        length: from end to end.
        width: from flank to flank.
        waist: height of the body.
        roof: height of the cabin.
    """

    x: float
    z: float
    across: bool
    length: float
    width: float
    waist: float
    roof: float

    def world(self, along: float, aside: float, y: float) -> Point3:
        if self.across:
            return self.x + along, y, self.z + aside
        return self.x + aside, y, self.z + along

    @property
    def nearest(self) -> float:
        """Distance of its nearest point: what stands between that and its middle is hidden by it."""
        return self.z - (self.width if self.across else self.length) / 2

    @property
    def end(self) -> float:
        """`along` of the end that the camera sees."""
        towards_camera = not self.across or self.x > 0
        return (-0.5 if towards_camera else 0.5) * self.length

    @property
    def flank(self) -> float:
        """`aside` of the flank that the camera sees."""
        towards_camera = self.across or self.x > 0
        return (-0.5 if towards_camera else 0.5) * self.width


def make_vehicle(stage: StreetStage, x: float, z: float, *, across: bool = False) -> Vehicle:
    """A car, or one time in six a van."""
    rng = stage.rng
    if rng.random() < 1 / 6:
        return Vehicle(x, z, across, rng.uniform(4.8, 6.5), 2.0, 1.2, rng.uniform(2.0, 2.9))
    return Vehicle(x, z, across, rng.uniform(3.6, 4.7), 1.8, rng.uniform(0.8, 0.95), rng.uniform(1.4, 1.7))


def paint_vehicle(stage: StreetStage, vehicle: Vehicle) -> None:
    """Shadow, wheels, flank, end, cabin with windows, lights."""
    canvas, rng = stage.canvas, stage.rng
    colour, glass = pick(rng, BODY), canvas.at(pick(rng, WINDOW, 8), vehicle.z)
    reach = vehicle.width * 0.55
    half = vehicle.length / 2
    corners = [vehicle.world(a, s, 0) for a, s in ((-half, -reach), (half, -reach), (half, reach), (-half, reach))]
    canvas.cast(corners, 150)
    _paint_wheels(stage, vehicle)
    flank_light, end_light = rng.uniform(0.75, 1.0), rng.uniform(0.85, 1.1)
    _paint_flank(stage, vehicle, shaded(colour, flank_light), glass)
    _paint_end(stage, vehicle, shaded(colour, end_light), glass)


def _paint_flank(stage: StreetStage, vehicle: Vehicle, colour: Colour, glass: Colour) -> None:
    canvas, half, aside = stage.canvas, vehicle.length / 2, vehicle.flank
    inset = aside * 0.85
    cabin = ((-0.92, 0.9), (-0.66, 0.72)) if vehicle.roof < 1.9 else ((-0.98, 0.98), (-0.94, 0.86))
    (low_a, low_b), (high_a, high_b) = cabin
    body = [(-half, 0.28), (half, 0.28), (half, vehicle.waist), (-half, vehicle.waist)]
    canvas.face([vehicle.world(a, aside, y) for a, y in body], colour, Thing.CAR)
    frame = [
        (low_a * half, aside, vehicle.waist),
        (low_b * half, aside, vehicle.waist),
        (high_b * half, inset, vehicle.roof),
        (high_a * half, inset, vehicle.roof),
    ]
    canvas.face([vehicle.world(*corner) for corner in frame], shaded(colour, 0.95), Thing.CAR)
    panes = ((0.08, 0.46), (0.54, 0.92))
    for start, stop in panes:
        points = [_between(frame, s, y) for s, y in ((start, 0.1), (stop, 0.1), (stop, 0.85), (start, 0.85))]
        canvas.polygon([canvas.camera.project(*vehicle.world(*p)) for p in points], glass, None)
    for a in (-0.62, 0.62):
        _paint_wheel(stage, vehicle, a * half)


def _between(frame: list[Point3], across: float, up: float) -> Point3:
    """A point in a quadrangle (low a, low b, high b, high a) at shares `across` and `up`."""
    low_a, low_b, high_b, high_a = frame
    low = [p + (q - p) * across for p, q in zip(low_a, low_b, strict=True)]
    high = [p + (q - p) * across for p, q in zip(high_a, high_b, strict=True)]
    x, y, z = (p + (q - p) * up for p, q in zip(low, high, strict=True))
    return x, y, z


def _paint_wheel(stage: StreetStage, vehicle: Vehicle, along: float) -> None:
    canvas = stage.canvas
    x, y, z = vehicle.world(along, vehicle.flank, 0.33)
    centre, radius = canvas.camera.project(x, y, z), canvas.camera.px(0.33, z)
    behind = canvas.camera.project(*vehicle.world(along + 0.33, vehicle.flank, 0.33))
    flat = max(1.0, abs(behind[0] - centre[0]))
    canvas.ellipse(centre, (flat, radius), TYRE, Thing.CAR)
    canvas.ellipse(centre, (flat * 0.5, radius * 0.5), canvas.at((140, 140, 142), z), None)


def _paint_wheels(stage: StreetStage, vehicle: Vehicle) -> None:
    """The two tyres under the end that the camera sees, and the dark under the car."""
    canvas, half = stage.canvas, vehicle.width / 2
    for aside in (-half, half * 0.7):
        tyre = [(aside, 0.0), (aside + half * 0.3, 0.0), (aside + half * 0.3, 0.4), (aside, 0.4)]
        canvas.face([vehicle.world(vehicle.end * 0.95, a, y) for a, y in tyre], TYRE, Thing.CAR)


def _paint_end(stage: StreetStage, vehicle: Vehicle, colour: Colour, glass: Colour) -> None:
    canvas, rng, half = stage.canvas, stage.rng, vehicle.width / 2
    waist, roof, end = vehicle.waist, vehicle.roof, vehicle.end

    def put(corners: list[Point], back: tuple[float, float], paint: Colour, label: int | None) -> None:
        """Corners (aside, y); `back` moves the lower and the upper ones away from the end."""
        points = [vehicle.world(end * (1 - back[y > waist + 0.2]), a, y) for a, y in corners]
        canvas.polygon([canvas.camera.project(*p) for p in points], paint, label)

    body, lean = canvas.at(colour, vehicle.z), (0.08, 0.34) if roof < 1.9 else (0.02, 0.06)
    cabin = [(-half * 0.95, waist), (half * 0.95, waist), (half * 0.8, roof), (-half * 0.8, roof)]
    put(cabin, lean, body, Thing.CAR)
    low, high = waist + 0.06, roof - 0.12
    put([(-half * 0.8, low), (half * 0.8, low), (half * 0.68, high), (-half * 0.68, high)], lean, glass, None)
    put([(-half, 0.25), (half, 0.25), (half, waist), (-half, waist)], (0, 0), body, Thing.CAR)
    lamp = canvas.at(rng.choice(((180, 30, 30), (235, 235, 220))), vehicle.z)
    for a in (-0.95, 0.6):
        put(
            [(half * a, 0.6), (half * (a + 0.35), 0.6), (half * (a + 0.35), 0.78), (half * a, 0.78)],
            (0, 0),
            lamp,
            None,
        )
    put([(-half, 0.25), (half, 0.25), (half, 0.42), (-half, 0.42)], (0, 0), shaded(body, 0.6), None)
    put(
        [(-0.25, 0.45), (0.25, 0.45), (0.25, 0.57), (-0.25, 0.57)],
        (0, 0),
        canvas.at((225, 220, 190), vehicle.z),
        None,
    )
