"""From the painted canvas to the photograph: shadows, texture, exposure, colour cast, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nas.data.street.canvas import SUPERSAMPLING, Canvas, Thing

# How strongly a surface's lightness varies, by class: leaves most, sky least.
ROUGHNESS = {
    Thing.SKY: 0.02,
    Thing.BUILDING: 0.10,
    Thing.POLE: 0.08,
    Thing.ROAD: 0.10,
    Thing.PAVEMENT: 0.12,
    Thing.TREE: 0.25,
    Thing.SIGN: 0.06,
    Thing.FENCE: 0.14,
    Thing.CAR: 0.08,
    Thing.PEDESTRIAN: 0.12,
    Thing.BICYCLIST: 0.12,
}
GROUND = (Thing.ROAD, Thing.PAVEMENT)
FINEST_PX = 3  # texture grain at 96x128; it grows with the picture, so that scenes look alike at all sizes


@dataclass(frozen=True)
class Exposure:
    """How the picture is taken.

    Attributes:
        gain: of each channel (brightness and colour cast).
        contrast: about mid-grey.
        noise: standard deviation of a pixel, of 255.
        blurred: by a soft lens.
        tilt: how much lighter the right is than the left, and the top than the bottom.
    """

    gain: tuple[float, float, float]
    contrast: float
    noise: float
    blurred: bool
    tilt: tuple[float, float]


def develop(
    canvas: Canvas, exposure: Exposure, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image uint8 (H, W, 3) and label uint8 (H, W) at the sample's size."""
    label = np.ascontiguousarray(np.asarray(canvas.label)[::SUPERSAMPLING, ::SUPERSAMPLING])
    reduced = canvas.image.reduce(SUPERSAMPLING)
    if exposure.blurred:
        reduced = reduced.filter(ImageFilter.BoxBlur(0.7))
    light = _lightness(canvas, label, exposure, rng)  # (H, W)
    pixels = np.asarray(reduced, np.float32) * light[..., None]  # (H, W, 3)
    pixels -= 127.5
    pixels *= np.asarray(exposure.gain, np.float32) * exposure.contrast
    pixels += 127.5 * np.asarray(exposure.gain, np.float32)
    pixels += rng.standard_normal(pixels.shape, np.float32) * exposure.noise
    return np.clip(pixels, 0, 255).astype(np.uint8), label


def _lightness(
    canvas: Canvas, label: NDArray[np.uint8], exposure: Exposure, rng: np.random.Generator
) -> NDArray[np.float32]:
    """float32 (H, W): what each pixel is multiplied by for texture, shadow and uneven light."""
    height, width = label.shape
    grain = max(1.0, height / 96) * FINEST_PX
    roughness = np.zeros(256, np.float32)
    roughness[list(ROUGHNESS)] = list(ROUGHNESS.values())
    texture = _clouds(label.shape, grain, rng) + 0.7 * _clouds(label.shape, grain / 3, rng)
    shadow = np.asarray(canvas.shadow.reduce(SUPERSAMPLING), np.float32) / 255
    shadow *= np.isin(label, GROUND)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32) * exposure.tilt[0]
    down = np.linspace(0.5, -0.5, height, dtype=np.float32) * exposure.tilt[1]
    light = (1 + roughness[label] * texture) * (1 - shadow) * (1 + across + down[:, None])
    return light.astype(np.float32, copy=False)


def _clouds(size: tuple[int, ...], grain_px: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise float32 (H, W) of standard deviation about 1, with features of `grain_px`."""
    rows, columns = (max(2, round(length / grain_px)) for length in size)
    coarse = rng.standard_normal((rows, columns), np.float32)
    if (rows, columns) == size:
        return coarse
    smooth = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32)
