"""How an image becomes a network's input: said once, by options or in a small TOML, or by the model's file."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from deploy.formats.tflite.normalization import Normalization
from deploy.ship.input_images import Colours, ImagePreprocessing, Size
from hil.errors import UsageError
from nas.settings import STRICT, build, read_toml

__all__ = ["HELP", "ImageOptions", "ImagePreprocessing", "preprocessing_of"]

HELP = "--mean 127.5 --std 127.5 is -1 to 1, --mean 0 --std 255 is 0 to 1, --mean 0 --std 1 the pixels as they are"


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


def preprocessing_of(options: ImageOptions, stated: Normalization | None) -> ImagePreprocessing | None:
    """What `options` say, else the model's file (`stated`); None where neither says how pixels become numbers."""
    if (options.mean is None) != (options.std is None):
        given, missing = ("--mean", "--std") if options.std is None else ("--std", "--mean")
        raise UsageError(f"{given} without {missing}: give both; {HELP}")
    formula = Normalization(options.mean, options.std) if options.mean and options.std else stated
    return None if formula is None else ImagePreprocessing(formula, options.size, options.colours or "rgb")
