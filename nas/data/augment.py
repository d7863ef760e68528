"""The training augmentation of DeepLabV3 and MMSegmentation: resize, crop, flip, distort the colours.

Parameters are MMSegmentation's defaults (`RandomResize`, `RandomCrop`, `RandomFlip`,
`PhotoMetricDistortion`), without its retries for a crop that one class dominates. Where the image has one label,
it is resized by less: at half or twice the size the labelled object may be out of the crop.

Crops are cut from the image at its own resolution. Scales are relative to what is deployed: at scale 1 a crop shows
things as large as the deployed network sees them, whatever the resolution of the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.sample import IGNORE, RGB_CHANNELS, Dataset, Sample, TaskName
from nas.errors import ConfigError

PAD_VALUE = 128  # 0 for the network: the deployed input is u8 - 128
BRIGHTNESS = 32  # added, of 255
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 26  # of Pillow's 256 steps round the circle: OpenCV's 18 of 180
LEVELS = np.arange(256)
SCALES: Mapping[TaskName, tuple[float, float]] = {"segmentation": (0.5, 2.0), "classification": (0.8, 1.25)}

Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Augment:
    """Makes a training crop of a sample; equal generators make equal crops.

    Attributes:
        size: (H, W) of the crop, filled up with PAD_VALUE and IGNORE at the right and below.
        shown: (H, W) that the full sample has at scale 1; None: the sample's own.
        scale: lowest and highest scale at which the sample is shown.
        flip: probability of a mirror image.
        photometric: whether brightness, contrast, saturation and hue vary.

    Raises:
        ConfigError: a parameter cannot be used.
    """

    size: tuple[int, int]
    shown: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    photometric: bool = True

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ConfigError(f"augment size {self.size}: give a positive height and width")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"augment scale {self.scale}: give 0 < lowest <= highest")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"augment flip {self.flip}: give a probability from 0 to 1")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A crop of `sample`: image uint8 (H, W, 3), label uint8 (H, W) or as it was (), H, W = self.size."""
        box, shown = self._window(sample.image.shape[:2], rng)
        mirrored = rng.random() < self.flip
        image = _shown(sample.image, box, shown, mirrored, Image.Resampling.BILINEAR)
        if self.photometric:
            image = distort(image, rng)
        full_image = np.full((*self.size, RGB_CHANNELS), PAD_VALUE, np.uint8)
        full_image[: image.height, : image.width] = np.asarray(image)
        if sample.label.ndim == 0:
            return Sample(full_image, sample.label)
        full_label = np.full(self.size, IGNORE, np.uint8)
        label = _shown(sample.label, box, shown, mirrored, Image.Resampling.NEAREST)
        full_label[: label.height, : label.width] = np.asarray(label)
        return Sample(full_image, full_label)

    def _window(self, size: tuple[int, ...], rng: np.random.Generator) -> tuple[Box, tuple[int, int]]:
        """The part of an image of `size` (H, W) that is shown, and the (width, height) it is resized to."""
        scale = rng.uniform(*self.scale)
        box: list[tuple[float, float]] = []
        shown: list[int] = []
        for length, at_1, wanted in zip(size, self.shown or size, self.size, strict=True):
            resized = max(1, round(at_1 * scale))
            kept = min(resized, wanted)
            start = int(rng.integers(resized - kept + 1))
            box.append((start * length / resized, (start + kept) * length / resized))
            shown.append(kept)
        (top, bottom), (left, right) = box
        return (left, top, right, bottom), (shown[1], shown[0])


def training_augment(data: Dataset) -> Augment:
    """The augmentation for training on `data`, by its task and `Dataset.crops`.

    Where every pixel is labelled no crop is padded: the lowest scale is raised to where the image fills it. An image
    with one label may be shown whole and smaller, as a crop of it may lack the labelled object.

    Raises:
        ConfigError: the image does not fill the crop at the highest scale.
    """
    crop, size = data.crops.size or data.size, data.size
    lowest, highest = data.crops.scales or SCALES[data.task]
    filled = max(wanted / length for wanted, length in zip(crop, size, strict=True))
    if filled > highest:
        raise ConfigError(
            f"data.crop {crop[0]}x{crop[1]}: larger than any scaled image; {size[0]}x{size[1]} at the highest scale,"
            f" {highest:g}, measures {round(size[0] * highest)}x{round(size[1] * highest)}: lower crop or raise scales"
        )
    if data.task == "segmentation":
        lowest = max(lowest, filled)
    return Augment(crop, size, (lowest, highest))


def _shown(
    values: NDArray[Any], box: Box, size: tuple[int, int], mirrored: bool, resampling: Image.Resampling
) -> Image.Image:
    """Resizes only the box: up to rounding this equals resizing all, then cropping."""
    shown = Image.fromarray(values).resize(size, resampling, box)
    return shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else shown


def distort(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """MMSegmentation's `PhotoMetricDistortion` of an RGB image, each step with probability one half.

    Brightness and contrast are one table of 256 values, hue and saturation another in HSV.
    """
    brightness, contrast_early, contrast, saturation, hue = rng.random(5) < 0.5
    shift = rng.uniform(-BRIGHTNESS, BRIGHTNESS) if brightness else 0.0
    gain = rng.uniform(*CONTRAST) if contrast else 1.0
    stretch = rng.uniform(*SATURATION) if saturation else 1.0
    turn = int(rng.integers(-HUE, HUE + 1)) if hue else 0

    light = _levels(LEVELS + shift)
    if contrast_early:
        light = _levels(light * gain)
    image = image.point(light.tolist() * RGB_CHANNELS)
    if saturation or hue:
        tables = [(LEVELS + turn) % 256, _levels(LEVELS * stretch), LEVELS]
        image = image.convert("HSV").point(np.concatenate(tables).tolist()).convert("RGB")
    if contrast and not contrast_early:
        image = image.point(_levels(LEVELS * gain).tolist() * RGB_CHANNELS)
    return image


def _levels(values: NDArray[Any]) -> NDArray[np.int64]:
    clipped: NDArray[np.int64] = np.clip(np.rint(values), 0, 255).astype(np.int64)
    return clipped
