"""Pedestrians and bicyclists."""

from __future__ import annotations

from nas.data.street.canvas import Colour, Point, StreetStage, Thing, pick, shaded

CLOTHES = (
    (40, 42, 50),
    (95, 95, 98),
    (190, 188, 182),
    (160, 40, 44),
    (40, 70, 130),
    (60, 95, 60),
    (205, 180, 80),
    (120, 86, 62),
    (190, 110, 140),
    (225, 120, 40),
)
SKIN = ((224, 180, 150), (190, 140, 108), (132, 92, 68), (88, 62, 48))
HAIR = ((40, 32, 28), (92, 66, 44), (170, 140, 90), (150, 150, 150))
BICYCLE = ((30, 30, 34), (150, 40, 40), (50, 80, 140), (170, 172, 172))


class Figure:
    """Draws limbs around a foot point, in metres across and up, all with one label."""

    def __init__(self, stage: StreetStage, place: tuple[float, float], facing: int, label: Thing) -> None:
        self.canvas, (self.x, self.z) = stage.canvas, place
        self.facing, self.label = facing, label

    def point(self, across: float, up: float) -> Point:
        return self.canvas.camera.project(self.x + self.facing * across, up, self.z)

    def limb(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        brush = (self.canvas.at(colour, self.z), int(self.label))
        self.canvas.stroke(self.point(*start), self.point(*end), self.canvas.camera.px(width, self.z), brush)

    def shape(self, corners: list[Point], colour: Colour) -> None:
        self.canvas.polygon([self.point(*c) for c in corners], self.canvas.at(colour, self.z), self.label)

    def disc(self, centre: Point, radii: Point, colour: Colour) -> None:
        pixels = (self.canvas.camera.px(radii[0], self.z), self.canvas.camera.px(radii[1], self.z))
        self.canvas.ellipse(self.point(*centre), pixels, self.canvas.at(colour, self.z), self.label)


def paint_pedestrian(stage: StreetStage, x: float, z: float) -> None:
    """A walking or standing person, 1.2 to 1.9 m tall."""
    rng = stage.rng
    s = rng.uniform(1.2, 1.9) / 1.8
    figure = Figure(stage, (x, z), rng.choice((-1, 1)), Thing.PEDESTRIAN)
    coat, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKIN, 8)
    stride, broad = rng.uniform(0.05, 0.38) * s, rng.uniform(0.2, 0.29) * s
    stage.shadow(x, z, 1.7 * s, 0.5)
    for foot, tone in ((-stride, 0.85), (stride, 1.0)):
        figure.limb((foot * 0.3, 0.9 * s), (foot, 0.0), 0.2 * s, shaded(trousers, tone))
        figure.limb((foot - 0.04, 0.05), (foot + 0.2 * s, 0.05), 0.09, (30, 28, 28))
    swing = stride * 0.9
    figure.limb((0, 1.4 * s), (swing + 0.1, 0.85 * s), 0.13 * s, shaded(coat, 0.8))
    hem = rng.choice((0.85, 0.85, 0.5)) * s
    torso = [(-broad * 0.8, hem), (broad * 0.8, hem), (broad, 1.42 * s), (-broad, 1.42 * s)]
    figure.shape(torso, coat)
    figure.limb((-broad * 0.6, 1.38 * s), (-swing - 0.1, 0.85 * s), 0.13 * s, shaded(coat, 1.15))
    if rng.random() < 0.3:
        figure.shape(
            [(-broad - 0.15, s), (-broad * 0.5, s), (-broad * 0.5, 1.4 * s), (-broad - 0.15, 1.4 * s)],
            pick(rng, CLOTHES),
        )
    figure.disc((0.0, 1.62 * s), (0.12 * s, 0.15 * s), skin)
    figure.disc((-0.02, 1.69 * s), (0.125 * s, 0.09 * s), pick(rng, HAIR, 8))


def paint_bicyclist(stage: StreetStage, x: float, z: float) -> None:
    """A rider on a bicycle, from the side or, riding along the street, from behind."""
    rng = stage.rng
    figure = Figure(stage, (x, z), rng.choice((-1, 1)), Thing.BICYCLIST)
    coat, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKIN, 8)
    frame, helmet = pick(rng, BICYCLE), pick(rng, (*CLOTHES, *HAIR))
    stage.shadow(x, z, 1.7, 0.6)
    turn = 1.0 if rng.random() < 0.6 else 0.3  # 1 is the full side view
    for hub in (-0.52 * turn, 0.52 * turn):
        figure.disc((hub, 0.35), (0.35 * turn, 0.35), (28, 28, 30))
        figure.disc((hub, 0.35), (0.27 * turn, 0.27), (118, 116, 112))
        figure.disc((hub, 0.35), (0.05, 0.05), (40, 40, 42))
    saddle, pedals, bars = (-0.22 * turn, 0.95), (-0.02, 0.32), (0.42 * turn, 1.0)
    for start, end in ((saddle, pedals), (pedals, bars), (saddle, bars), ((-0.52 * turn, 0.35), pedals)):
        figure.limb(start, end, 0.06, frame)
    figure.limb(bars, (0.52 * turn, 0.35), 0.06, frame)
    knee = (0.25 * turn, 0.75)
    figure.limb(saddle, knee, 0.19, trousers)
    figure.limb(knee, (0.0, 0.25), 0.15, shaded(trousers, 0.9))
    broad = 0.17 + 0.12 * (1 - turn)
    shoulder = (0.12 * turn, 1.5)
    back = [
        (saddle[0] - broad, 0.9),
        (saddle[0] + broad, 0.9),
        (shoulder[0] + broad, 1.5),
        (shoulder[0] - broad, 1.5),
    ]
    figure.shape(back, coat)
    figure.limb(shoulder, bars, 0.12, shaded(coat, 0.85))
    figure.disc((0.2 * turn, 1.68), (0.12, 0.15), skin)
    figure.disc((0.2 * turn, 1.76), (0.14, 0.09), helmet)
