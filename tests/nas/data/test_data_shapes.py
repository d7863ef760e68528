"""Generated figures: the same bytes for the same key, every class, and nothing but the outline to distinguish them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nas.data import open_data
from nas.data.shapes import COUNTS, OUTLINES, Shapes, draw_shape

SIZE = (40, 48)


def test_the_same_key_draws_the_same_bytes() -> None:
    first, again = (draw_shape((3, "train", 5), SIZE) for _ in range(2))
    assert first.image.shape == (*SIZE, 3) and first.label.shape == ()
    assert first.image.tobytes() == again.image.tobytes() and first.label == again.label
    others = [draw_shape(key, SIZE) for key in ((4, "train", 5), (3, "val", 5), (3, "train", 6))]
    assert all(other.image.tobytes() != first.image.tobytes() for other in others)


def test_every_class_is_about_as_frequent() -> None:
    data = open_data("shapes", "train", (24, 24), count=600)
    found = Counter(int(sample.label) for sample in data)
    assert sorted(found) == list(range(len(OUTLINES))) and min(found.values()) > 30
    assert data.classes == tuple(OUTLINES)


def test_calibration_and_evaluation_see_all_classes() -> None:
    """Even distances must not fall in step with the classes."""
    data = Shapes("train", (24, 24))
    assert len(data) == COUNTS["train"]
    for count in (16, 32):
        assert len({int(data[i * len(data) // count].label) for i in range(count)}) > 6


def test_colour_says_nothing() -> None:
    """The nearest class mean of the images' mean colour is hardly better than chance."""
    data = Shapes("train", (24, 24), count=1000)
    colours = np.array([sample.image.mean((0, 1)) for sample in data])
    labels = np.array([int(sample.label) for sample in data])
    means = np.stack([colours[:500][labels[:500] == c].mean(0) for c in range(len(OUTLINES))])
    found = np.square(colours[500:, None] - means).sum(2).argmin(1)
    assert (found == labels[500:]).mean() < 2 / len(OUTLINES)


def test_outlines_are_of_one_size() -> None:
    for name, points in OUTLINES.items():
        assert 0.85 <= max(np.hypot(*point) for point in points) < 1.06, name


def test_indices_end_and_samples_are_read_only() -> None:
    data = Shapes("val", SIZE, count=3)
    assert len(data) == 3 and data[-1] is data[2]
    with pytest.raises(IndexError):
        data[3]
    with pytest.raises(ValueError, match="read-only"):
        data[0].image[0, 0, 0] = 1
