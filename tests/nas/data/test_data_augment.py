"""Augmentation: image and label stay together, and what is drawn is the reference recipe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from nas.data import IGNORE, Crops, Sample, open_data
from nas.data.augment import PAD_VALUE, SCALES, Augment, distort, training_augment
from nas.data.files import resized
from nas.data.scenes import DETAIL
from nas.errors import ConfigError

STEP = 16  # of the image's grey, for each class


def coded(label: NDArray[np.uint8]) -> Sample:
    """A sample whose image shows its label in grey."""
    return Sample(np.repeat(label[..., None] * np.uint8(STEP), 3, axis=2), label)


def blocks(size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """Squares of 8 pixels, one class up from each to the next on its right and below."""
    rows, columns = (np.arange(length) // 8 for length in size)
    return (rows[:, None] + columns).astype(np.uint8)


def assert_aligned(crop: Sample) -> None:
    """Resizing mixes neighbours in the image, which are one class apart; all else would be a shift."""
    known = crop.label != IGNORE
    grey = crop.image[..., 0]
    assert known.any()
    assert np.all(grey[~known] == PAD_VALUE)
    assert np.abs(grey[known].astype(int) - crop.label[known].astype(int) * STEP).max() <= STEP + 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(16, 80), st.integers(16, 80)),
    scale=st.sampled_from([(0.5, 2.0), (1.0, 1.0), (0.5, 0.5), (2.0, 2.0)]),
)
def test_image_and_label_move_together(seed: int, size: tuple[int, int], scale: tuple[float, float]) -> None:
    augment = Augment(size, scale=scale, photometric=False)
    crop = augment(coded(blocks()), np.random.default_rng(seed))
    assert crop.label.shape == size
    assert_aligned(crop)


def test_without_resizing_the_alignment_is_exact() -> None:
    augment = Augment((32, 40), scale=(1.0, 1.0), photometric=False)
    for seed in range(20):
        crop = augment(coded(blocks()), np.random.default_rng(seed))
        np.testing.assert_array_equal(crop.image[..., 2], crop.label * np.uint8(STEP))


def test_a_flip_is_a_mirror_image() -> None:
    sample = coded(blocks((24, 20)))
    plain, mirrored = (
        Augment((24, 20), scale=(1.0, 1.0), flip=flip, photometric=False)(sample, np.random.default_rng(1))
        for flip in (0.0, 1.0)
    )
    np.testing.assert_array_equal(plain.image, sample.image)
    np.testing.assert_array_equal(mirrored.image, sample.image[:, ::-1])
    np.testing.assert_array_equal(mirrored.label, sample.label[:, ::-1])


def test_half_of_the_crops_are_flipped() -> None:
    ramp = coded(np.tile(np.arange(11, dtype=np.uint8), (4, 1)))
    augment = Augment((4, 11), scale=(1.0, 1.0), photometric=False)
    rng = np.random.default_rng(0)
    flipped = sum(int(augment(ramp, rng).label[0, 0]) == 10 for _ in range(400))
    assert 150 < flipped < 250


def test_what_is_smaller_is_padded_right_and_below() -> None:
    crop = Augment((40, 40), scale=(0.5, 0.5), flip=0)(coded(blocks((48, 64))), np.random.default_rng(0))
    assert np.all(crop.label[:24, :32] != IGNORE)
    assert np.all(crop.label[24:] == IGNORE)
    assert np.all(crop.label[:, 32:] == IGNORE)
    assert np.all(crop.image[24:] == PAD_VALUE)


def test_resizing_the_crop_alone_equals_cropping_the_resized() -> None:
    noise = np.random.default_rng(5).integers(0, 256, (48, 64, 3), np.uint8)
    sample = Sample(noise, blocks())
    crop = Augment((32, 32), scale=(1.5, 1.5), flip=0, photometric=False)(sample, np.random.default_rng(2))
    whole = np.asarray(Image.fromarray(noise).resize((96, 72), Image.Resampling.BILINEAR)).astype(int)
    labels = np.asarray(Image.fromarray(sample.label).resize((96, 72), Image.Resampling.NEAREST))
    windows = [(y, x) for y in range(41) for x in range(65)]
    best = min(windows, key=lambda at: np.abs(whole[at[0] : at[0] + 32, at[1] : at[1] + 32] - crop.image).max())
    y, x = best
    assert np.abs(whole[y : y + 32, x : x + 32] - crop.image).max() <= 2
    np.testing.assert_array_equal(labels[y : y + 32, x : x + 32], crop.label)


def test_equal_generators_make_equal_crops() -> None:
    sample, augment = coded(blocks()), Augment((32, 32))
    first, again, other = (augment(sample, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)
    np.testing.assert_array_equal(sample.image, coded(blocks()).image)


def test_distortion_varies_light_and_colour_within_bounds() -> None:
    grey, orange = (Image.new("RGB", (4, 4), colour) for colour in ((100, 100, 100), (200, 120, 60)))
    rng = np.random.default_rng(0)
    greys = np.array([np.asarray(distort(grey, rng))[0, 0] for _ in range(3000)]).astype(int)
    assert np.ptp(greys, axis=1).max() == 0  # neither hue nor saturation colours a grey
    assert 30 <= greys.min() < 60  # (100 - 32) * 0.5 = 34
    assert 180 < greys.max() <= 200  # (100 + 32) * 1.5 = 198
    hues = [distort(orange, rng).convert("HSV").getpixel((0, 0))[0] for _ in range(300)]
    turns = (np.array(hues) - orange.convert("HSV").getpixel((0, 0))[0] + 128) % 256 - 128
    assert turns.max() > 15
    assert turns.min() < -15
    assert np.abs(turns).max() < 60  # 26, and what clipping of bright channels adds


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": (0, 4)}, "positive height"),
        ({"size": (4, 4), "scale": (0.0, 1.0)}, "0 < lowest"),
        ({"size": (4, 4), "scale": (2.0, 1.0)}, "0 < lowest"),
        ({"size": (4, 4), "flip": 1.5}, "probability"),
    ],
)
def test_bad_parameters_are_refused(options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Augment(**options)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.tuples(st.integers(16, 80), st.integers(16, 80)))
def test_a_label_of_the_full_image_stays_and_changes_no_draw(seed: int, size: tuple[int, int]) -> None:
    augment, by_pixel = Augment(size), coded(blocks())
    whole = augment(Sample(by_pixel.image, np.array(7, np.int64)), np.random.default_rng(seed))
    assert whole.label == 7
    np.testing.assert_array_equal(whole.image, augment(by_pixel, np.random.default_rng(seed)).image)


def test_what_is_resized_how_far_depends_on_the_task() -> None:
    scenes, shapes = (training_augment(open_data(name, "train", (32, 32))) for name in ("scenes", "shapes"))
    assert scenes == Augment((32, 32), (32, 32), (1.0, 2.0))  # half of the image would not fill the crop
    assert 0.5 < shapes.scale[0] < 1 < shapes.scale[1] < 2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    crop=st.tuples(st.integers(8, 72), st.integers(8, 72)),
    lowest=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_no_crop_of_labelled_pixels_is_padded(seed: int, crop: tuple[int, int], lowest: float) -> None:
    augment = training_augment(open_data("scenes", "train", (36, 48), crops=Crops(crop, (lowest, 2.0))))
    assert augment.size == crop
    stored = coded(np.full((61, 83), 3, np.uint8))  # of another shape than what is deployed
    crop_of_it = augment(stored, np.random.default_rng(seed))
    assert np.all(crop_of_it.label == 3)


def test_the_lowest_scale_is_the_one_that_is_given_where_it_fills_the_crop() -> None:
    def scale(crops: Crops) -> tuple[float, float]:
        return training_augment(open_data("scenes", "train", (36, 48), crops=crops)).scale

    assert scale(Crops((9, 12))) == SCALES["segmentation"]
    assert scale(Crops((27, 30))) == (0.75, 2.0)
    assert scale(Crops((27, 30), (0.9, 1.5))) == (0.9, 1.5)


@pytest.mark.parametrize("name", ["scenes", "shapes"])
def test_a_crop_larger_than_any_scaled_image_is_refused(name: str) -> None:
    data = open_data(name, "train", (36, 48), crops=Crops((54, 60), (0.5, 1.4)))
    with pytest.raises(ConfigError) as caught:
        training_augment(data)
    assert "data.crop 54x60: larger than any scaled image; 36x48 at the highest scale, 1.4, measures" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    training_augment(open_data(name, "train", (36, 48), crops=Crops((54, 60), (0.5, 1.5))))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": (0, 4)}, "crop 0x4: give a positive height"),
        ({"scales": (0.0, 1.0)}, "give 0 < lowest <= highest"),
        ({"scales": (2.0, 1.0)}, "give 0 < lowest <= highest"),
        ({"scales": (1.0, float("nan"))}, "give 0 < lowest <= highest"),
    ],
)
def test_bad_crops_are_refused(options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Crops(**options)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_scale_shows_the_same_whatever_the_resolution_of_the_file(factor: int) -> None:
    """At scale 1 a class of 8 pixels of the deployed size has 8 pixels of the crop."""
    label = blocks().repeat(factor, axis=0).repeat(factor, axis=1)
    augment = Augment((32, 40), (48, 64), (1.0, 1.0), flip=0, photometric=False)
    for seed in range(5):
        rngs = (np.random.default_rng(seed) for _ in range(2))
        small, large = (augment(coded(stored), rng) for stored, rng in zip((blocks(), label), rngs, strict=True))
        np.testing.assert_array_equal(large.label, small.label)
        assert_aligned(large)


def test_crops_show_the_originals_detail() -> None:
    """Stripes of two pixels, which the deployed size cannot show, are there at the highest scale."""
    stripes = coded(np.tile(np.array([0, 0, 9, 9], np.uint8), (96, 32)))
    whole = Augment((96, 128), (48, 64), (2.0, 2.0), flip=0, photometric=False)(stripes, np.random.default_rng(0))
    np.testing.assert_array_equal(whole.image, stripes.image)
    np.testing.assert_array_equal(whole.label, stripes.label)


def test_a_scene_is_its_original_which_has_the_detail_that_crops_show() -> None:
    data = open_data("scenes", "train", (48, 64), count=4)
    assert SCALES["segmentation"][1] <= DETAIL
    for index in range(4):
        original = data.original(index)
        assert original.label.shape == (48 * DETAIL, 64 * DETAIL)
        np.testing.assert_array_equal(resized(original, data.size).image, data[index].image)
        assert original is data.original(index)
