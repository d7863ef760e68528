"""Procedural scenes: pure, exact, varied, and with every class."""

from __future__ import annotations

import numpy as np
import pytest

from nas.data import IGNORE, open_data
from nas.data.camvid import CLASSES
from nas.data.scenes import Scenes, draw_scene
from nas.data.street.canvas import SUPERSAMPLING, Camera, Canvas, Thing

SIZE = (48, 64)
WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes("train", (96, 128), count=120)


def test_labels_are_camvids(scenes: Scenes) -> None:
    assert scenes.classes == CLASSES
    assert [thing.name.lower() for thing in Thing] == [name.split()[0] for name in CLASSES]


def test_a_scene_depends_on_its_key_alone() -> None:
    first = draw_scene((3, "train", 5), SIZE)
    draw_scene((0, "val", 1), SIZE)
    again = draw_scene((3, "train", 5), SIZE)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    for other in ((3, "train", 6), (3, "val", 5), (4, "train", 5)):
        assert not np.array_equal(first.label, draw_scene(other, SIZE).label)


def test_a_larger_scene_shows_the_same_street() -> None:
    small, large = (draw_scene((0, "train", 2), size).label for size in ((48, 64), (192, 256)))
    assert np.mean(small == large[::4, ::4]) > 0.85


@pytest.mark.parametrize("size", [(48, 64), (97, 131), (64, 64), (128, 64), (512, 1024)])
def test_every_size_is_drawn(size: tuple[int, int]) -> None:
    sample = draw_scene((0, "train", 0), size)
    assert sample.image.shape == (*size, 3)
    assert {Thing.SKY, Thing.ROAD, Thing.BUILDING} <= set(np.unique(sample.label))


def test_counts_and_ends() -> None:
    assert len(open_data("scenes", "train", SIZE)) == 256
    assert len(open_data("scenes", "val", SIZE)) == 64
    few = open_data("scenes", "val", SIZE, count=3)
    assert len(list(few)) == 3
    with pytest.raises(IndexError):
        few[3]
    np.testing.assert_array_equal(few[2].image, open_data("scenes", "val", SIZE)[2].image)


def test_every_class_is_common_enough_to_learn(scenes: Scenes) -> None:
    labels = np.stack([sample.label for sample in scenes])
    assert set(np.unique(labels)) == {*range(len(CLASSES)), IGNORE}
    for thing in Thing:
        assert np.mean([np.any(label == thing) for label in labels]) > 0.2, thing.name
        assert np.mean(labels == thing) > 0.004, thing.name
    assert np.mean(labels == IGNORE) < 0.02


SHAPES = {
    "polygon": lambda canvas, label: canvas.polygon([(9, 9), (70, 20), (30, 50)], WHITE, label),
    "box": lambda canvas, label: canvas.box((50, 40), (20, 10), WHITE, label),
    "hair": lambda canvas, label: canvas.box((40.4, 5), (40.4, 60), WHITE, label),
    "ellipse": lambda canvas, label: canvas.ellipse((40, 30), (20, 0.1), WHITE, label),
    "stroke": lambda canvas, label: canvas.stroke((5, 5), (70, 55), 0.2, (WHITE, label)),
    "face": lambda canvas, label: canvas.face([(-1, 0, 5), (1, 0, 5), (1, 2, 9), (-1, 2, 9)], WHITE, label),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_image_and_label_are_painted_with_one_geometry(shape: str) -> None:
    camera = Camera(focal_px=80, centre_px=40, horizon_px=30, height_m=1.5, bend=0.0)
    canvas = Canvas((64, 80), camera, haze=(0, 0, 0), haze_m=100)
    SHAPES[shape](canvas, Thing.CAR)
    seen = np.asarray(canvas.image).max(axis=2) > 0
    labelled = np.asarray(canvas.label) == Thing.CAR
    np.testing.assert_array_equal(seen, labelled)
    assert labelled[::SUPERSAMPLING, ::SUPERSAMPLING].any()  # however thin, it reaches the sample
    before = np.asarray(canvas.label).copy()
    canvas.polygon([(0, 0), (79, 0), (79, 63)], WHITE, None)
    np.testing.assert_array_equal(np.asarray(canvas.label), before)  # a detail leaves the label


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [-2, 2])
def test_the_photograph_is_where_the_label_is(scenes: Scenes, axis: int, shift: int) -> None:
    """Steps of lightness at the edges of the label are higher than two pixels beside them."""
    on_edge = beside = 0.0
    for index in range(30):
        sample = scenes[index]
        step = np.abs(np.diff(sample.image.astype(float).mean(axis=2), axis=axis))
        edge = np.diff(sample.label.astype(int), axis=axis) != 0
        moved = np.roll(edge, shift, axis=axis) & ~edge
        on_edge += step[edge].mean()
        beside += step[moved].mean()
    assert on_edge > 1.4 * beside


def test_colour_alone_does_not_decide(scenes: Scenes) -> None:
    """The best guess of the class from a colour of 8x8x8 leaves much to shape and context."""
    votes = np.zeros((512, len(CLASSES)))
    for index in range(60):
        sample = scenes[index]
        known = sample.label != IGNORE
        cells = (sample.image[known] // 32).astype(int) @ [64, 8, 1]
        np.add.at(votes, (cells, sample.label[known]), 1)
    assert votes.max(axis=1).sum() / votes.sum() < 0.6
