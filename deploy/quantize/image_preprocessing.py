"""How an image becomes a network's input: said once, by options or in a small TOML, or by the model's file."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.formats.tflite.normalization import Normalization
from hil.errors import UsageError
from nas.settings import STRICT, build, read_toml

Colours = Literal["rgb", "bgr"]
Size = tuple[int, int]
HELP = "--mean 127.5 --std 127.5 is -1 to 1, --mean 0 --std 255 is 0 to 1, --mean 0 --std 1 the pixels as they are"
SMALLEST_STD = 1.0  # of pixels from 0 to 255; those of 0 to 1 lie below it


@dataclass(frozen=True)
class ImageOptions:
    """What a TOML or options say; None: nothing.

    Attributes:
        mean, std: value = (pixel - mean) / std, the pixel from 0 to 255; one number, or one for each channel of the
            network, in its order.
        size: (H, W) that images are resized to; the middle of it is the network's input.
        colours: the order of the network's channels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: Size | None = None
    colours: Colours | None = None
    __pydantic_config__ = STRICT

    @classmethod
    def read(cls, path: Path) -> ImageOptions:
        """Of a TOML file; `ConfigError` for unknown keys and wrong types."""
        return build(cls, read_toml(path), str(path))

    def over(self, other: ImageOptions) -> ImageOptions:
        """What this says, else what `other` does."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(other, **said)


@dataclass(frozen=True)
class ImagePreprocessing:
    """From an image to the network's input; see `ImageOptions`."""

    formula: Normalization
    size: Size | None = None
    colours: Colours = "rgb"

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
        top, left = (rows - height) // 2, (columns - width) // 2
        pixels = np.asarray(picture, np.float32).reshape(rows, columns, channels)
        pixels = pixels[top : top + height, left : left + width, :: -1 if self.colours == "bgr" else 1]
        mean, std = (np.array(numbers, np.float32) for numbers in (self.formula.mean, self.formula.std))
        return np.asarray((pixels - mean) / std, np.float32)


def preprocessing_of(options: ImageOptions, stated: Normalization | None) -> ImagePreprocessing | None:
    """What `options` say, else the model's file (`stated`); None where neither says how pixels become numbers."""
    if (options.mean is None) != (options.std is None):
        given, missing = ("--mean", "--std") if options.std is None else ("--std", "--mean")
        raise UsageError(f"{given} without {missing}: give both; {HELP}")
    formula = Normalization(options.mean, options.std) if options.mean and options.std else stated
    return None if formula is None else ImagePreprocessing(formula, options.size, options.colours or "rgb")


def _listed(numbers: tuple[float, ...] | list[float]) -> str:
    return ",".join(f"{n:g}" for n in numbers)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
