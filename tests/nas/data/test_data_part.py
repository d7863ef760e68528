"""Parts of a data set: held-out images, and those that calibrate and evaluate, are apart."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.data import Crops, open_data
from nas.data.batches import images_of
from nas.data.part import CHUNKS, Part, evenly_spaced, held_out
from nas.data.sample import Sample
from nas.data.shapes import Shapes


def numbered(count: int, *, video: bool = False) -> Shapes:
    """Images that show their number."""

    class Numbered(Shapes):
        def __getitem__(self, index: int, /) -> Sample:
            return Sample(np.full((24, 24, 3), index, np.uint8), np.array(0, np.int64))

    data = Numbered("train", (24, 24), count=count)
    object.__setattr__(data, "video", video)
    return data


def shown(data: Shapes, count: int, **options: int) -> list[int]:
    return [round(float(x) * 128 + 128) for batch in images_of(data, count, **options) for x in batch[:, 0, 0, 0]]


@given(video=st.booleans(), length=st.integers(2, 200), data=st.data())
def test_as_many_as_asked_for_are_held_out_and_none_is_in_both(video: bool, length: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, length - 1))
    rest, apart = held_out(numbered(length, video=video), count)
    assert len(apart) == count
    assert sorted((*rest.indices, *apart.indices)) == list(range(length))


def test_frames_of_a_video_are_held_out_in_stretches(camvid: Path) -> None:
    """A single frame between two that are trained on would be known; of a stretch only the ends have neighbours."""
    _, apart = held_out(numbered(367, video=True), 45)
    gaps = [b - a for a, b in pairwise(apart.indices) if b - a > 1]
    assert len(gaps) == CHUNKS - 1 and min(gaps) > 60
    assert open_data(f"camvid:{camvid}", "train", (24, 32)).video
    _, single = held_out(numbered(256), 32)
    assert {b - a for a, b in pairwise(single.indices)} == {8}


def test_a_part_shows_the_originals_of_its_samples() -> None:
    data = open_data("scenes", "train", (32, 48), count=6, crops=Crops((24, 24)))
    part = Part(data, (4, 1))
    assert part.original(0) is data.original(4)
    assert (part.crops, part.video, part.size) == (Crops((24, 24)), False, (32, 48))


def test_evenly_spaced_takes_all_where_there_are_fewer() -> None:
    data = numbered(10)
    assert evenly_spaced(data, 3).indices == (0, 3, 6)
    assert evenly_spaced(data, 20).indices == tuple(range(10))


@pytest.mark.parametrize(("length", "first", "second"), [(256, 16, 8), (224, 16, 8), (224, 32, 32), (7, 4, 4)])
def test_images_besides_others_are_none_of_them(length: int, first: int, second: int) -> None:
    """At even distances in both, every second one of calibration's would be one of evaluation's."""
    data = numbered(length)
    ours, theirs = shown(data, first), shown(data, second, besides=first)
    assert not set(ours) & set(theirs)
    assert len(set(theirs)) == min(second, length - first)


def test_where_all_are_taken_they_are_taken_again() -> None:
    assert shown(numbered(4), 4, besides=4) == [0, 1, 2, 3]
