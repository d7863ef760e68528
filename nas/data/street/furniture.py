"""What stands along a street: trees, lamp posts, signs, traffic lights, bollards, fences."""

from __future__ import annotations

import math

from nas.data.street.backdrop import BUILDING, GREEN
from nas.data.street.canvas import Colour, Point, StreetStage, Thing, pick, shaded

BARK = ((82, 64, 50), (62, 56, 50), (112, 100, 88))
POLE = ((92, 94, 97), (48, 48, 50), (152, 152, 152), (60, 80, 62), (120, 96, 72), (192, 190, 186))
SIGN = (
    (190, 40, 40),
    (35, 80, 170),
    (225, 190, 50),
    (30, 110, 70),
    (228, 228, 225),
    (110, 70, 45),
    (205, 110, 40),
)
FENCE = ((60, 60, 62), (122, 92, 62), (202, 200, 196), (52, 80, 56), (142, 142, 146), (150, 88, 62))


def paint_tree(stage: StreetStage, x: float, z: float) -> None:
    """A trunk and a crown of overlapping clumps, lighter towards the top."""
    canvas, rng = stage.canvas, stage.rng
    height, spread = rng.uniform(4, 10), rng.uniform(1.2, 2.6)
    leaves = pick(rng, GREEN)
    foot, fork = canvas.camera.project(x, 0, z), canvas.camera.project(x, height * 0.6, z)
    stage.shadow(x, z, height, spread)
    canvas.stroke(foot, fork, canvas.camera.px(rng.uniform(0.2, 0.45), z), (canvas.at(pick(rng, BARK), z), Thing.TREE))
    for i in range(18):
        rise = (i + rng.random()) / 18
        reach = spread * math.sin(math.pi * (0.15 + 0.8 * rise))
        centre = canvas.camera.project(
            x + rng.uniform(-reach, reach), height * (0.45 + 0.5 * rise) + rng.uniform(-0.4, 0.4), z
        )
        radius = canvas.camera.px(spread * rng.uniform(0.25, 0.5), z)
        tone = shaded(leaves, rng.uniform(0.65, 1.05) + 0.25 * rise)
        canvas.ellipse(centre, (radius, radius * rng.uniform(0.7, 1.0)), canvas.at(tone, z), Thing.TREE)


def paint_lamp(stage: StreetStage, x: float, z: float) -> None:
    """A post with an arm over the road."""
    canvas, rng = stage.canvas, stage.rng
    height, thickness = rng.uniform(4.5, 8.0), rng.uniform(0.14, 0.3)
    brush = (canvas.at(pick(rng, POLE), z), int(Thing.POLE))
    top = canvas.camera.project(x, height, z)
    stage.shadow(x, z, height, thickness)
    canvas.stroke(canvas.camera.project(x, 0, z), top, canvas.camera.px(thickness, z), brush)
    arm = -math.copysign(rng.uniform(0.0, 2.0), x)
    if abs(arm) > 0.5:
        tip = canvas.camera.project(x + arm, height + 0.3, z)
        canvas.stroke(top, tip, canvas.camera.px(0.12, z), brush)
        canvas.ellipse(tip, (canvas.camera.px(0.35, z), canvas.camera.px(0.12, z)), *brush)


def paint_bollards(stage: StreetStage, x: float, z: float) -> None:
    """A few short posts one behind another, the farthest first."""
    canvas, rng = stage.canvas, stage.rng
    colour = pick(rng, POLE)
    for i in reversed(range(rng.randint(2, 4))):
        away = z + 1.5 * i
        foot, top = canvas.camera.project(x, 0, away), canvas.camera.project(x, 1.0, away)
        canvas.stroke(foot, top, canvas.camera.px(0.2, away), (canvas.at(colour, away), Thing.POLE))


def paint_sign(stage: StreetStage, x: float, z: float) -> None:
    """A post that carries one or two plates, a direction board or a traffic light."""
    canvas, rng = stage.canvas, stage.rng
    kind = rng.choice(("round", "triangle", "square", "board", "light"))
    base = rng.uniform(1.9, 2.8)
    height = base + rng.uniform(0.5, 1.0)
    post = (canvas.at(pick(rng, POLE), z), int(Thing.POLE))
    stage.shadow(x, z, height, 0.3)
    canvas.stroke(canvas.camera.project(x, 0, z), canvas.camera.project(x, height, z), canvas.camera.px(0.13, z), post)
    centre = canvas.camera.project(x, height, z)
    radius = canvas.camera.px(rng.uniform(0.4, 0.55), z)
    if kind == "light":
        _paint_light(stage, centre, radius, z)
    elif kind == "board":
        _paint_board(stage, centre, radius, z)
    else:
        _paint_plate(stage, kind, (centre, radius), z)
        if rng.random() < 0.4:
            below = (centre[0], centre[1] + radius * 1.7)
            _paint_plate(stage, rng.choice(("round", "square")), (below, radius * 0.75), z)


def _paint_plate(stage: StreetStage, kind: str, disc: tuple[Point, float], z: float) -> None:
    canvas, rng = stage.canvas, stage.rng
    ((x, y), radius), rim = disc, canvas.at(pick(rng, SIGN), z)
    inner = canvas.at(pick(rng, SIGN), z)
    for share, colour, label in ((1.0, rim, Thing.SIGN), (0.62, inner, None)):
        r = radius * share
        if kind == "round":
            canvas.ellipse((x, y), (r, r), colour, label)
        elif kind == "triangle":
            canvas.polygon([(x, y - r * 1.1), (x + r * 1.1, y + r * 0.8), (x - r * 1.1, y + r * 0.8)], colour, label)
        else:
            canvas.box((x - r * 0.9, y - r), (x + r * 0.9, y + r), colour, label)


def _paint_board(stage: StreetStage, centre: Point, radius: float, z: float) -> None:
    canvas, rng = stage.canvas, stage.rng
    (x, y), wide = centre, radius * rng.uniform(1.6, 2.6)
    ground = pick(rng, SIGN)
    text = canvas.at((235, 235, 230) if sum(ground) < 420 else (40, 40, 45), z)
    canvas.box((x - wide, y - radius), (x + wide, y + radius), canvas.at(ground, z), Thing.SIGN)
    for line in (-0.45, 0.25):
        end = x + wide * rng.uniform(0.1, 0.8)
        canvas.box((x - wide * 0.8, y + radius * line), (end, y + radius * (line + 0.25)), text, None)


def _paint_light(stage: StreetStage, centre: Point, radius: float, z: float) -> None:
    canvas, rng = stage.canvas, stage.rng
    (x, y), half = centre, radius * 0.55
    canvas.box((x - half, y - radius * 1.5), (x + half, y + radius * 1.5), canvas.at(pick(rng, POLE), z), Thing.SIGN)
    on = rng.randrange(3)
    for i, colour in enumerate(((230, 50, 40), (235, 170, 40), (60, 210, 110))):
        lamp = colour if i == on else shaded(colour, 0.3)
        canvas.ellipse((x, y + radius * (i - 1)), (half * 0.6, half * 0.6), canvas.at(lamp, z), None)


def paint_fence_panel(stage: StreetStage, x: float, z: tuple[float, float], look: tuple[Colour, float, bool]) -> None:
    """One panel along the street from z[0] to z[1]; `look` is (colour, height in metres, railing)."""
    canvas, (near, far), (colour, height, railing) = stage.canvas, z, look
    bars = 6 if near < 15 else 3
    fill = shaded(colour, 0.6) if railing else colour
    canvas.face([(x, 0.0, near), (x, 0.0, far), (x, height, far), (x, height, near)], fill, Thing.FENCE)
    bar = shaded(colour, 1.15 if railing else 0.75)
    for i in range(bars):
        at = far + (near - far) * i / bars
        step = (near - far) / bars * 0.35
        canvas.face([(x, 0.0, at), (x, 0.0, at + step), (x, height, at + step), (x, height, at)], bar, None)
    for y in (height * 0.15, height * 0.85):
        canvas.face([(x, y, near), (x, y, far), (x, y + 0.09, far), (x, y + 0.09, near)], bar, None)


def fence_look(stage: StreetStage) -> tuple[Colour, float, bool]:
    """Colour, height in metres and whether it is a railing."""
    palette = FENCE if stage.rng.random() < 0.8 else BUILDING
    return pick(stage.rng, palette), stage.rng.uniform(0.9, 1.8), stage.rng.random() < 0.5
