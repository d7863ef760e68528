"""The teacher's maps: from the cache as if they had been computed, within its bound, complete or not at all."""

from __future__ import annotations

import math
import re
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import Crops, open_data
from nas.data.batches import load, training_batch
from nas.errors import ConfigError
from nas.networks.segmenter import Head, teacher
from nas.space import Block, SearchSpace
from nas.training import features
from nas.training.device import DTYPES, Compute
from nas.training.features import FeatureCache, View, ViewFeatures, Views, fresh, map_shapes, open_cache, teacher_maps

SIZE = (48, 64)
SPACE = SearchSpace("tiny", 8, 8, (Block(2, 12, 1, 1), Block(1, 16, 2, 1)), (3,), (2, 6))
SHAPES = map_shapes(SPACE, SIZE)
VIEW_BYTES = 4 * sum(map(math.prod, SHAPES))
CPU = Compute("cpu")
BATCH_SIZE = 4


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return open_data("scenes", "train", SIZE, count=6)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return teacher(SPACE, 11, Head(8, (2,))).eval()


def cache(folder, views: int = 12, limit_bytes: int = 10**9, dtype: torch.dtype = torch.float32, key: str = "k"):
    return open_cache(folder, key, SHAPES, dtype, (views, limit_bytes))


def assert_same(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()


@given(size=st.tuples(st.integers(32, 49), st.integers(32, 49)), strides=st.lists(st.sampled_from([1, 2]), max_size=4))
@settings(max_examples=15, deadline=None)
def test_the_shapes_are_those_of_the_maps(size, strides):
    blocks = tuple(Block(stride, 4 + i, 1, 1) for i, stride in enumerate(strides)) or SPACE.blocks
    space = replace(SPACE, blocks=blocks)
    maps = teacher_maps(teacher(space, 2, Head(4, (1,))).eval(), torch.zeros(1, 3, *size), CPU)
    assert [(h, w, c) for _, c, h, w in (m.shape for m in maps)] == map_shapes(space, size)


@pytest.mark.parametrize("views", [0, 1, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_maps_are_the_computed_ones(tmp_path, data, model, views, precision):
    compute = Compute("cpu", precision)
    shown = Views(data, views, seed=5)
    computed = ViewFeatures(model, shown, BATCH_SIZE, compute)
    limit = VIEW_BYTES * 5 * DTYPES[precision].itemsize // 4  # some are kept, some are not
    kept = replace(computed, cache=cache(tmp_path, len(shown), limit, DTYPES[precision]))
    for step in range(12):  # eight epochs, so every view is read again
        assert_same(kept(step), computed(step))
    assert len(list(tmp_path.glob("k/*"))) == 5
    again = replace(computed, cache=cache(tmp_path, len(shown), limit, DTYPES[precision]))
    assert_same(again(3), computed(3))


@pytest.mark.parametrize("views", [0, 2])
def test_kept_maps_are_of_the_crops_size(tmp_path, model, views):
    """Without an augmentation a view is the image as it is deployed."""
    cropped = open_data("scenes", "train", SIZE, count=6, crops=Crops((40, 56)))
    shown = Views(cropped, views, seed=5)
    assert shown.size == ((40, 56) if views else SIZE) == tuple(shown.image(View(1, 0)).shape[2:])
    shapes = map_shapes(SPACE, shown.size)
    computed = ViewFeatures(model, shown, BATCH_SIZE, CPU)
    kept = replace(computed, cache=open_cache(tmp_path, "k", shapes, torch.float32, (len(shown), 10**9)))
    for _ in range(2):
        assert_same(kept(0), computed(0))
    assert len(list(tmp_path.glob("k/*"))) == BATCH_SIZE


def test_maps_that_are_kept_are_not_computed(tmp_path, data, model, monkeypatch):
    kept = ViewFeatures(model, Views(data, 2, 0), BATCH_SIZE, CPU, cache(tmp_path))
    kept.fill()
    monkeypatch.setattr(features, "teacher_maps", lambda *_: pytest.fail("the teacher was asked"))
    for step in range(6):
        kept(step)
    kept.fill()


def test_a_view_does_not_depend_on_its_neighbours(data, model):
    shown = Views(data, 1, 0)
    alone, together = ViewFeatures(model, shown, 1, CPU), ViewFeatures(model, shown, len(data), CPU)
    for maps in zip(together(0), *(alone(step) for step in range(len(data))), strict=True):
        assert torch.equal(maps[0], torch.cat(maps[1:]))
    for ours, theirs in zip(alone(2), teacher_maps(model, shown.image(shown.of_step(2, 1)[0]), CPU), strict=True):
        assert torch.equal(ours, theirs)


def test_fresh_maps_are_the_teachers_of_the_step(data, model):
    def images(step: int) -> torch.Tensor:
        return training_batch(data, step, batch_size=BATCH_SIZE, augment=None, seed=0)[0]

    with torch.no_grad():
        assert_same(
            fresh(model, images, CPU)(2),
            model.boundaries(images(2).contiguous(memory_format=torch.channels_last)),
        )


def test_every_view_is_shown_equally_often(data):
    shown = Views(data, 3, seed=1)
    steps = 2 * 3 * len(data) // BATCH_SIZE
    seen = Counter(view for step in range(steps) for view in shown.of_step(step, BATCH_SIZE))
    assert seen == Counter({View(i, n): 2 for i in range(len(data)) for n in range(3)})
    assert sorted(map(shown.position, seen)) == list(range(len(shown)))
    assert all(shown.at(shown.position(view)) == view for view in seen)


def test_views_are_augmented_each_in_its_own_way(data):
    plain, two = Views(data, 0, 0), Views(data, 2, 0)
    assert torch.equal(plain.image(View(1, 0)), load(data, [1])[0])
    images = [plain.image(View(1, 0)), two.image(View(1, 0)), two.image(View(1, 1))]
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[i + 1 :])
    assert torch.equal(images[1], Views(data, 2, 0).image(View(1, 0)))


def test_an_incomplete_file_is_written_again(tmp_path, data, model):
    kept = ViewFeatures(model, Views(data, 0, 0), BATCH_SIZE, CPU, cache(tmp_path))
    maps = kept(0)
    for path in tmp_path.glob("k/*.maps"):
        path.write_bytes(path.read_bytes()[:-4])
    assert_same(kept(0), maps)
    assert {path.stat().st_size for path in tmp_path.glob("k/*.maps")} == {VIEW_BYTES}


def test_what_others_left_is_removed(tmp_path):
    mine = cache(tmp_path, key="mine")
    mine.write(0, [torch.ones(shape) for shape in SHAPES])
    (tmp_path / "mine" / "0000001.77.part").write_bytes(b"killed")
    cache(tmp_path, key="mine")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["0000000.maps"]
    cache(tmp_path, key="another teacher's")
    assert [p.name for p in tmp_path.iterdir()] == ["another teacher's"]


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_no_half(tmp_path, data, model):
    kept = ViewFeatures(model, Views(data, 0, 0), BATCH_SIZE, CPU, cache(tmp_path))
    with (
        files_of_at_most(VIEW_BYTES // 2),
        pytest.raises(ConfigError, match=r"\.maps: .*lower distil\.cache_gb") as said,
    ):
        kept(0)
    assert "\n" not in str(said.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_disk_too_small_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, VIEW_BYTES * 3))
    filled = cache(tmp_path, 3)
    with pytest.raises(ConfigError, match=re.escape("distil.cache_gb allows")):
        cache(tmp_path, 4)
    filled.write(0, [torch.ones(shape) for shape in SHAPES])
    cache(tmp_path, 4)  # what is there needs no room


def test_a_view_beyond_the_bound_is_not_kept(tmp_path):
    small = FeatureCache(tmp_path, SHAPES, torch.float32, 1)
    small.write(1, [torch.ones(shape) for shape in SHAPES])
    assert not list(tmp_path.iterdir()) and small.read(1) is None
