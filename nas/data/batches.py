"""Samples become tensors, and a training step becomes a batch that depends on nothing but the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data.augment import Augment
from nas.data.sample import IGNORE, Dataset, Sample
from nas.errors import ConfigError, DataError

ZERO_LEVEL = 128
ORDER, AUGMENTATION = 0, 1  # streams of randomness drawn from one seed


def normalize(images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 (N, H, W, 3), or N arrays (H, W, 3), to float32 (N, 3, H, W): (u8 - 128) / 128.

    Every result is exact in float32, and in int8 with scale 1/128 and zero point 0 it is u8 - 128: the deployed
    model's input equals that of training.
    """
    stacked = torch.from_numpy(np.stack(list(images)))  # (N, H, W, 3); a copy, as cached samples are read-only
    planes = stacked.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.sub_(ZERO_LEVEL).div_(ZERO_LEVEL)


def load(
    data: Dataset,
    indices: Sequence[int],
    augment: Augment | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Images float32 (N, 3, H, W) and labels int64 (N, H, W), or (N,) for classification, of the samples at `indices`.

    An augmentation is given the samples at their own resolution.

    Raises:
        ConfigError: no index, or an augmentation without a generator.
        DataError: a label that the data set has no class for.
    """
    if not len(indices):
        raise ConfigError("load: no index; ask for at least one sample")
    if augment is None:
        samples = [_checked(data, int(i), data[int(i)]) for i in indices]
    else:
        if rng is None:
            raise ConfigError("load: an augmentation needs randomness; pass rng=numpy.random.default_rng(seed)")
        samples = [_checked(data, int(i), augment(data.original(int(i)), rng)) for i in indices]
    labels = torch.from_numpy(np.stack([sample.label for sample in samples]))
    return normalize([sample.image for sample in samples]), labels.to(torch.int64)


def _checked(data: Dataset, index: int, sample: Sample) -> Sample:
    """`sample`, which shows what is at `index`."""
    above = sample.label + sample.label.dtype.type(1)  # of the uint8 labels, IGNORE becomes 0
    highest, classes = int(above.max()) - 1, len(data.classes)
    if highest >= classes:
        raise DataError(
            f"{data.name}, sample {index}: label {highest}, but the data set names {classes} classes (0 to"
            f" {classes - 1}); name the missing ones, or store {IGNORE} where a label map is unlabelled"
        )
    return sample


def batches(data: Dataset, batch_size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """All of `data` in order and not augmented, as by `load`."""
    for start in range(0, len(data), batch_size):
        yield load(data, range(start, min(start + batch_size, len(data))))


def images_of(data: Dataset, count: int, *, besides: int = 0, batch_size: int = 16) -> Iterator[Tensor]:
    """`count` images evenly spaced over `data` (all, if fewer), in batches (N, 3, H, W), not augmented.

    `besides`: none that `images_of(data, besides)` gives, unless that leaves none.
    """
    return (images for images, _ in samples_of(data, count, besides=besides, batch_size=batch_size))


def samples_of(data: Dataset, count: int, *, besides: int = 0, batch_size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """`images_of` with their labels."""
    every = range(len(data))
    taken = set(_evenly_spaced(every, besides))
    indices = _evenly_spaced([index for index in every if index not in taken] or every, count)
    for start in range(0, len(indices), batch_size):
        yield load(data, indices[start : start + batch_size])


def _evenly_spaced(indices: Sequence[int], count: int) -> list[int]:
    count = min(count, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]


def training_indices(length: int, step: int, *, batch_size: int, seed: int) -> list[int]:
    """Which samples step `step` (from 0) trains on: consecutive in a new shuffle of 0..length-1 each epoch.

    A batch may straddle two epochs, so that each epoch shows each sample exactly once.
    """
    if length < 1 or batch_size < 1 or step < 0 or seed < 0:
        raise ConfigError(
            f"training batch: {length} samples, batch size {batch_size}, step {step}, seed {seed}:"
            " the first two must be positive, the others not negative"
        )
    positions = range(step * batch_size, (step + 1) * batch_size)
    epochs = {position // length for position in positions}
    orders = {epoch: np.random.default_rng([seed, ORDER, epoch]).permutation(length) for epoch in epochs}
    return [int(orders[position // length][position % length]) for position in positions]


def training_batch(
    data: Dataset, step: int, *, batch_size: int, augment: Augment | None, seed: int
) -> tuple[Tensor, Tensor]:
    """The batch of a step: images float32 (N, 3, H, W), labels int64 (N, H, W) or (N,).

    A pure function of (seed, step): a resumed run sees exactly what an uninterrupted one would.
    """
    indices = training_indices(len(data), step, batch_size=batch_size, seed=seed)
    return load(data, indices, augment, np.random.default_rng([seed, AUGMENTATION, step]))
