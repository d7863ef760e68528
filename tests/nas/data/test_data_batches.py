"""Batches: the deployed normalization, and an order that a resumed run repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import open_data
from nas.data.augment import Augment
from nas.data.batches import load, normalize, training_batch, training_indices
from nas.data.sample import IGNORE, Sample
from nas.errors import ConfigError, DataError

SIZE = (48, 64)


def test_normalization_is_the_deployed_int8_input() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    x = normalize(levels)
    assert x.shape == (1, 3, 16, 16)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    quantized = (x * 128).to(torch.int8)  # scale 1/128, zero point 0
    expected = (levels.astype(int) - 128).astype(np.int8).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(quantized.numpy(), expected)
    torch.testing.assert_close(quantized.float() / 128, x, rtol=0, atol=0)


def test_an_array_and_a_list_are_the_same_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    untouched = images.copy()
    torch.testing.assert_close(normalize(images), normalize(list(images)), rtol=0, atol=0)
    np.testing.assert_array_equal(images, untouched)
    assert normalize(images)[1, 2, 3, 5] == (int(images[1, 3, 5, 2]) - 128) / 128


def test_load_gives_the_samples_asked_for() -> None:
    data = open_data("scenes", "val", SIZE, count=4)
    images, labels = load(data, [2, 0])
    assert images.shape == (2, 3, 48, 64)
    assert (labels.dtype, tuple(labels.shape)) == (torch.int64, (2, 48, 64))
    np.testing.assert_array_equal(labels[0].numpy(), data[2].label)
    torch.testing.assert_close(images[1], normalize([data[0].image])[0], rtol=0, atol=0)


def test_load_refuses_what_it_cannot_do() -> None:
    data = open_data("scenes", "val", SIZE, count=1)
    with pytest.raises(ConfigError, match="at least one"):
        load(data, [])
    with pytest.raises(ConfigError, match="pass rng"):
        load(data, [0], Augment(SIZE))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**40))
def test_each_epoch_is_a_permutation(length: int, batch_size: int, seed: int) -> None:
    steps = -(-3 * length // batch_size)
    batches = [training_indices(length, step, batch_size=batch_size, seed=seed) for step in range(steps)]
    assert {len(batch) for batch in batches} == {batch_size}
    seen = [index for batch in batches for index in batch]
    for epoch in range(3):
        assert sorted(seen[epoch * length : (epoch + 1) * length]) == list(range(length))


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    orders = [training_indices(50, step, batch_size=50, seed=seed) for step in (0, 1) for seed in (0, 1)]
    assert len({tuple(order) for order in [*orders, range(50)]}) == 5


def test_a_resumed_run_sees_what_an_uninterrupted_one_does() -> None:
    augment = Augment((32, 32))

    def batch(step: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        data = open_data("scenes", "train", SIZE, count=5)
        return training_batch(data, step, batch_size=3, augment=augment, seed=seed)

    uninterrupted = [batch(step) for step in range(4)]
    for step in (3, 1):
        for expected, resumed in zip(uninterrupted[step], batch(step), strict=True):
            torch.testing.assert_close(resumed, expected, rtol=0, atol=0)
    assert not torch.equal(batch(3)[0], batch(3, seed=2)[0])
    assert uninterrupted[0][0].shape == (3, 3, 32, 32)


def test_a_sample_is_cropped_anew_at_each_step() -> None:
    data = open_data("scenes", "train", SIZE, count=1)
    first, second = (training_batch(data, step, batch_size=2, augment=Augment((32, 32)), seed=0)[0] for step in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_without_augmentation_a_batch_is_the_samples() -> None:
    data = open_data("scenes", "train", SIZE, count=5)
    indices = training_indices(5, 1, batch_size=4, seed=0)
    _, labels = training_batch(data, 1, batch_size=4, augment=None, seed=0)
    np.testing.assert_array_equal(labels.numpy(), np.stack([data[i].label for i in indices]))


@pytest.mark.parametrize("bad", [{"length": 0}, {"batch_size": 0}, {"step": -1}, {"seed": -1}])
def test_bad_steps_are_refused(bad: dict) -> None:
    asked = {"length": 4, "step": 0, "batch_size": 2, "seed": 0} | bad
    with pytest.raises(ConfigError, match="training batch"):
        training_indices(**asked)


@dataclass(frozen=True)
class TwoClasses:
    """A data set that names two classes, whatever its labels say."""

    labels: tuple[np.ndarray, ...]
    name: str = "mine"
    classes: tuple[str, ...] = ("road", "sky")
    size: tuple[int, int] = (2, 2)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Sample:
        return Sample(np.zeros((2, 2, 3), np.uint8), self.labels[index])


@pytest.mark.parametrize("label", [np.array([[0, 1], [IGNORE, 2]], np.uint8), np.array(2, np.int64)])
def test_a_label_without_a_class_is_named(label: np.ndarray) -> None:
    data = TwoClasses((np.full_like(label, 1), label))
    assert int(load(data, [0])[1].max()) == 1
    with pytest.raises(
        DataError, match=r"mine, sample 1: label 2, but the data set names 2 classes \(0 to 1\)"
    ) as said:
        load(data, [0, 1])
    assert "\n" not in str(said.value)


def test_what_is_unlabelled_is_no_class() -> None:
    _, labels = load(TwoClasses((np.full((2, 2), IGNORE, np.uint8),)), [0])
    assert bool((labels == IGNORE).all())
