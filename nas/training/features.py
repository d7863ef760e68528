"""The teacher's feature maps that the blocks learn from: computed once per step for all blocks, or cached on disk.

A fresh augmentation per step, as published, never shows the same image twice, so there is nothing to cache. With
`views` each sample has a fixed number of them (0: the image as it is), which epochs show in turn; their maps can be
cached. Each view passes through the teacher separately, whatever batch it is in, so a cached map equals a computed one
bit for bit.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from nas.data.augment import training_augment
from nas.data.batches import AUGMENTATION, load, training_indices
from nas.data.sample import Dataset
from nas.errors import ConfigError
from nas.networks.segmenter import Encoder
from nas.space import SearchSpace
from nas.training.device import Compute, channels_last, device_of

Shape: TypeAlias = tuple[int, int, int]  # (H, W, C)
GB = 10**9


class Features(Protocol):
    """The teacher's maps of a step's batch: what enters block 1, then what leaves each block, (N, C, H, W)."""

    def __call__(self, step: int) -> list[Tensor]: ...


def teacher_maps(teacher: Encoder, images: Tensor, compute: Compute) -> list[Tensor]:
    """The maps at all block boundaries for images (N, 3, H, W), on the teacher's device."""
    device = device_of(teacher)
    with torch.no_grad(), compute.autocast(device):
        return teacher.boundaries(channels_last(images, device))


def fresh(teacher: Encoder, images: Callable[[int], Tensor], compute: Compute) -> Features:
    """The maps of images(step), which no other step shows."""
    return lambda step: teacher_maps(teacher, images(step), compute)


@dataclass(frozen=True)
class View:
    """The `number`-th view of sample `index`."""

    index: int
    number: int


@dataclass(frozen=True, eq=False)
class Views:
    """A fixed number of views of each sample.

    Attributes:
        data: the samples.
        count: augmented views per sample; 0: one, the image as it is.
        seed: of the augmentation and of the order.
    """

    data: Dataset
    count: int
    seed: int

    def __len__(self) -> int:
        return len(self.data) * max(1, self.count)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a view."""
        return training_augment(self.data).size if self.count else self.data.size

    def position(self, view: View) -> int:
        """A view's place in the order of all: the first view of every sample, then the second ..."""
        return view.number * len(self.data) + view.index

    def at(self, position: int) -> View:
        number, index = divmod(position, len(self.data))
        return View(index, number)

    def of_step(self, step: int, batch_size: int) -> list[View]:
        """The views of a training step: that step's samples, with their views in turn, one per epoch."""
        indices = training_indices(len(self.data), step, batch_size=batch_size, seed=self.seed)
        positions = range(step * batch_size, (step + 1) * batch_size)
        return [View(i, p // len(self.data) % max(1, self.count)) for i, p in zip(indices, positions, strict=True)]

    def image(self, view: View) -> Tensor:
        """(1, 3, H, W), a pure function of the seed and the view."""
        if not self.count:
            return load(self.data, [view.index])[0]
        rng = np.random.default_rng([self.seed, AUGMENTATION, view.index, view.number])
        return load(self.data, [view.index], training_augment(self.data), rng)[0]


def map_shapes(space: SearchSpace, size: tuple[int, int]) -> list[Shape]:
    """The shapes of the maps at the block boundaries for an image of `size` (H, W)."""
    height, width = (-(-n // 2) for n in size)  # the stem's stride
    shapes = [(height, width, space.first_channels)]
    for block in space.blocks:
        height, width = (-(-n // block.stride) for n in (height, width))
        shapes.append((height, width, block.channels))
    return shapes


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """The maps of views in a folder: one file per view, raw (H, W, C) after (H, W, C), memory-mapped for reading.

    The first views that fit into the bound are kept, and none is evicted: every epoch visits all of them, and in that
    order a cache that evicts the oldest would always miss. Files are written aside, flushed and renamed, so those that
    exist are complete; one of another length is written again.
    """

    folder: Path
    shapes: Sequence[Shape]
    dtype: torch.dtype
    capacity: int

    @property
    def view_bytes(self) -> int:
        return sum(map(math.prod, self.shapes)) * self.dtype.itemsize

    def read(self, position: int) -> list[Tensor] | None:
        """A view's maps, each (H, W, C) and read-only by convention; None where they are not kept."""
        path = self._path(position)
        try:
            if position >= self.capacity or path.stat().st_size != self.view_bytes:
                return None
        except FileNotFoundError:
            return None
        sizes = [math.prod(shape) for shape in self.shapes]
        flat = torch.from_file(str(path), shared=False, size=sum(sizes), dtype=self.dtype)
        parts = torch.split(flat, sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def write(self, position: int, maps: Sequence[Tensor]) -> None:
        """Keep a view's maps, each (H, W, C), if they are among those that fit.

        Raises `ConfigError` where the disk is full or the folder cannot be written.
        """
        if position >= self.capacity:
            return
        flat = torch.cat([m.reshape(-1) for m in maps]).to("cpu", self.dtype)
        path = self._path(position)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(flat.view(torch.uint8).numpy().data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ConfigError(f"{path}: {error.strerror}; make room or lower distil.cache_gb, then run again") from None

    def _path(self, position: int) -> Path:
        return self.folder / f"{position:07}.maps"


def open_cache(
    folder: Path, key: str, shapes: Sequence[Shape], dtype: torch.dtype, limit: tuple[int, int]
) -> FeatureCache:
    """The cache of `key` in `folder`, within `limit` = (views, bytes); files of other keys are deleted.

    Raises `ConfigError` where the disk has no room for the missing maps: now, not hours later.
    """
    views, limit_bytes = limit
    view_bytes = sum(map(math.prod, shapes)) * dtype.itemsize
    cache = FeatureCache(folder / key, shapes, dtype, min(views, limit_bytes // view_bytes))
    if folder.exists():
        for other in folder.iterdir():
            if other.name != key:
                shutil.rmtree(other, ignore_errors=True)
    cache.folder.mkdir(parents=True, exist_ok=True)
    for left in cache.folder.glob("*.part"):  # by a process that was killed
        left.unlink(missing_ok=True)
    there = sum(1 for _ in cache.folder.glob("*.maps"))
    missing, free = (cache.capacity - there) * cache.view_bytes, shutil.disk_usage(folder).free
    if missing > free:
        raise ConfigError(
            f"{folder}: distil.cache_gb allows {missing / GB:.1f} GB more of feature maps, the disk has {free / GB:.1f}"
            " GB; make room or lower it"
        )
    return cache


def weights_digest(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of all weights and statistics."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class ViewFeatures:
    """`Features` of fixed views, from a cache where there is one."""

    teacher: Encoder
    views: Views
    batch_size: int
    compute: Compute
    cache: FeatureCache | None = None

    def __call__(self, step: int) -> list[Tensor]:
        """Cached or computed, the batch is assembled in the same way, so that even its memory order is the same."""
        device = device_of(self.teacher)
        samples = [self.of_view(view) for view in self.views.of_step(step, self.batch_size)]
        return [torch.stack(parts).permute(0, 3, 1, 2).to(device) for parts in zip(*samples, strict=True)]

    def of_view(self, view: View) -> list[Tensor]:
        """The maps of one view, each (H, W, C)."""
        position = self.views.position(view)
        if self.cache is not None and (kept := self.cache.read(position)) is not None:
            return kept
        maps = teacher_maps(self.teacher, self.views.image(view), self.compute)
        ordered = [m[0].permute(1, 2, 0).to(self.compute.dtype(m.device)).contiguous() for m in maps]
        if self.cache is not None:
            self.cache.write(position, ordered)
        return ordered

    def fill(self) -> None:
        """Compute the maps that fit into the cache and are not there yet."""
        if self.cache is None:
            return
        for position in range(self.cache.capacity):
            if self.cache.read(position) is None:
                self.of_view(self.views.at(position))
