"""The training augmentation of DeepLabV3 and MMSegmentation: resize, crop, flip, distort the colours.

Parameters are MMSegmentation's defaults (`RandomResize`, `RandomCrop`, `RandomFlip`,
`PhotoMetricDistortion`), without its retries for a crop that one class dominates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.sample import IGNORE, RGB_CHANNELS, Sample
from nas.errors import ConfigError

PAD_VALUE = 128  # 0 for the network: the deployed input is u8 - 128
BRIGHTNESS = 32  # added, of 255
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 26  # of Pillow's 256 steps round the circle: OpenCV's 18 of 180
LEVELS = np.arange(256)


@dataclass(frozen=True)
class Augment:
    """Makes a training crop of a sample; equal generators make equal crops.

    Attributes:
        size: (H, W) of the crop, filled up with PAD_VALUE and IGNORE at the right and below.
        scale: lowest and highest ratio that the sample is resized by before cropping.
        flip: probability of a mirror image.
        photometric: whether brightness, contrast, saturation and hue vary.

    Raises:
        ConfigError: a parameter cannot be used.
    """

    size: tuple[int, int]
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
        """A crop of `sample`: image uint8 (H, W, 3), label uint8 (H, W), H, W = self.size."""
        image, label = self._crop(sample, rng)
        if rng.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            label = label.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.photometric:
            image = distort(image, rng)
        return self._padded(np.asarray(image), np.asarray(label))

    def _crop(self, sample: Sample, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
        """Resizes only what is shown: Pillow's `box` is resizing all, then cropping, up to rounding."""
        ratio = rng.uniform(*self.scale)
        box: list[tuple[float, float]] = []
        shown: list[int] = []
        for length, wanted in zip(sample.label.shape, self.size, strict=True):
            resized = max(1, round(length * ratio))
            kept = min(resized, wanted)
            start = int(rng.integers(resized - kept + 1))
            box.append((start * length / resized, (start + kept) * length / resized))
            shown.append(kept)
        (top, bottom), (left, right) = box
        region, size = (left, top, right, bottom), (shown[1], shown[0])
        return (
            Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR, region),
            Image.fromarray(sample.label).resize(size, Image.Resampling.NEAREST, region),
        )

    def _padded(self, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> Sample:
        height, width = label.shape
        full_image = np.full((*self.size, RGB_CHANNELS), PAD_VALUE, np.uint8)
        full_label = np.full(self.size, IGNORE, np.uint8)
        full_image[:height, :width] = image
        full_label[:height, :width] = label
        return Sample(full_image, full_label)


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
