"""How an image becomes a network's input: its colours, its size, and from pixels to real values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.formats.tflite.normalization import Normalization
from hil.errors import UsageError
from nas.data.middle import middle
from nas.settings import STRICT

Colours = Literal["rgb", "bgr"]
Size = tuple[int, int]
SMALLEST_STD = 1.0  # of pixels from 0 to 255; those of 0 to 1 lie below it


@dataclass(frozen=True)
class ImagePreprocessing:
    """From an image to the network's input.

    Attributes:
        formula: from pixels to real values, in the order of the network's channels.
        size: (H, W) that images are resized to; the middle of it is the input. None: to the input itself.
        colours: the order of the network's channels, where it has three.
    """

    formula: Normalization
    size: Size | None = None
    colours: Colours = "rgb"
    __pydantic_config__ = STRICT

    def __str__(self) -> str:
        mean, std = (", ".join(f"{n:g}" for n in numbers) for numbers in (self.formula.mean, self.formula.std))
        resized = f"resized to {self.size[0]}x{self.size[1]}, " if self.size else ""
        return f"{resized}{self.colours}, (pixel - [{mean}]) / [{std}]"

    def check(self, shape: tuple[int, ...]) -> None:
        """`UsageError` where no image becomes an input of `shape` (rows, columns, channels) by this."""
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise UsageError(
                f"images have rows, columns and 1 or 3 channels, the network's input {_by(shape)}: give arrays, "
                "--data FILE.npz"
            )
        for name, numbers in (("--mean", self.formula.mean), ("--std", self.formula.std)):
            if len(numbers) not in (1, shape[2]) or not all(map(math.isfinite, numbers)):
                raise UsageError(f"{name} {_listed(numbers)}: give one number, or {shape[2]}, one for each channel")
        if min(self.formula.std) < SMALLEST_STD:
            scaled = _listed([255 * n for n in self.formula.std])
            raise UsageError(
                f"--std {_listed(self.formula.std)}: is of pixels from 0 to 255; if yours are from 0 to 1, multiply "
                f"--mean and --std by 255: --std {scaled}"
            )
        if shape[2] == 1 and self.colours != "rgb":
            raise UsageError(f"--colours {self.colours}: the network reads one channel, grey; leave it out")
        if self.size and min(n - m for n, m in zip(self.size, shape, strict=False)) < 0:
            raise UsageError(
                f"--size {self.size[0]}x{self.size[1]}: the network reads {shape[0]}x{shape[1]}: give at least that"
            )

    def input(self, image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The input of `shape` (H, W, C) for an RGB image (h, w, 3)."""
        height, width, channels = shape
        rows, columns = self.size or (height, width)
        picture = Image.fromarray(image)
        if channels == 1:
            picture = picture.convert("L")
        if picture.size != (columns, rows):
            picture = picture.resize((columns, rows), Image.Resampling.BILINEAR)
        pixels = middle(np.asarray(picture).reshape(rows, columns, channels), (height, width))
        mean, std = (np.array(numbers, np.float32) for numbers in (self.formula.mean, self.formula.std))
        return np.asarray((self._ordered(pixels).astype(np.float32) - mean) / std, np.float32)

    def image(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The pixels, RGB (H, W, 3) or grey (H, W), of which `values` (H, W, C) are the input."""
        mean, std = (np.array(numbers, np.float32) for numbers in (self.formula.mean, self.formula.std))
        pixels = self._ordered(np.rint(values * std + mean).clip(0, 255).astype(np.uint8))
        return pixels[..., 0] if pixels.shape[2] == 1 else pixels

    def _ordered(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return pixels[..., ::-1] if self.colours == "bgr" else pixels


def _listed(numbers: tuple[float, ...] | list[float]) -> str:
    return ",".join(f"{n:g}" for n in numbers)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
