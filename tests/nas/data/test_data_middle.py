"""The middle of a data set's samples."""

from __future__ import annotations

import numpy as np
import pytest

from nas.data import open_data
from nas.data.middle import Middle, middle


@pytest.mark.parametrize(("data", "dense"), [("scenes", True), ("shapes", False)])
def test_image_and_label_are_cut_alike(data: str, dense: bool) -> None:
    whole = open_data(data, "val", (40, 50), count=2)
    part = Middle(whole, (36, 42))
    assert (part.size, len(part), part.task, part.classes, part.name) == (
        (36, 42), 2, whole.task, whole.classes, whole.name,
    )  # fmt: skip
    for i, sample in enumerate(part):
        assert np.array_equal(sample.image, whole[i].image[2:38, 4:46])
        assert np.array_equal(sample.label, whole[i].label[2:38, 4:46] if dense else whole[i].label)
        assert np.array_equal(part.original(i).image, whole.original(i).image)


def test_an_odd_rest_is_below_and_to_the_right() -> None:
    assert middle(np.arange(5)[:, None] * np.ones(4, int), (2, 4))[:, 0].tolist() == [1, 2]
