"""What a model's input is, and how an image becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploy.formats.tflite.read import read
from deploy.ship.manifest import Preprocessing
from deploy.targets.inspection import inspect_model
from hil.errors import UsageError

RESIZE = "bilinear to the input's height and width"
PLAIN_SCALE = 1 / 128
PLAIN: Mapping[str, tuple[int, str]] = {"int8": (0, "int8 = uint8 - 128"), "uint8": (128, "as it is")}
"""By the type of the model's input: its zero point, and the formula from a pixel's value."""


def input_type(model: Path) -> str:
    """Type of the model's input; `UsageError` for a type that no model of this kit has."""
    kind = inspect_model(read(model)).inputs[0].dtype.lower()
    if kind not in PLAIN:
        raise UsageError(f"{model}: its input is {kind}; a bundle needs a model whose input is {' or '.join(PLAIN)}")
    return kind


def preprocessing(model: Path, size: tuple[int, int]) -> Preprocessing:
    """Plain, or by the model's scale where its first layer reads fewer than 8 bits; `size` is (H, W)."""
    kind, end = input_type(model), inspect_model(read(model)).inputs[0]
    scale, (zero_point, formula) = PLAIN_SCALE, PLAIN[kind]
    if len(end.scale) == 1 and (*end.scale, *end.zero_point) != (scale, zero_point):
        scale, zero_point = end.scale[0], end.zero_point[0]
        formula = f"{kind} = round((uint8 - 128) / 128 / {scale!r}) + {zero_point}, ties to even"
    return Preprocessing(f"{kind}, NHWC, batch 1, RGB", formula, scale, zero_point, RESIZE, size)
