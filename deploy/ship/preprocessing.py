"""What a model's input is, and how an image becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploy.formats.tflite.normalization import Normalization
from deploy.formats.tflite.read import read
from deploy.ship.manifest import Preprocessing
from deploy.ship.model_ends import OURS, images_of
from deploy.targets.inspection import GraphTensor, inspect_model
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


def preprocessing(model: Path) -> Preprocessing:
    """As the model's file says; plain, or by the model's scale where its first layer reads fewer than 8 bits."""
    kind, info = input_type(model), read(model)
    end, images = inspect_model(info).inputs[0], images_of(info)
    if images is None:
        shape = "x".join(map(str, end.shape))
        return Preprocessing(f"{kind}, {shape}", scale=end.scale[0], zero_point=end.zero_point[0])
    height, width, channels = end.shape[1:]
    colours = "grey" if channels == 1 else images.colours
    name = "grey" if colours == "grey" else colours.upper()
    own = images.formula == OURS and colours == "rgb"
    formula, scale, zero_point = _own(kind, end) if own else _stated(kind, end, images.formula)
    resize = RESIZE
    if images.size:
        resize = (
            f"bilinear to {images.size[0]} x {images.size[1]}, then the middle of it; one of the input's size as it is"
        )
    return Preprocessing(
        f"{kind}, NHWC, batch 1, {name}",
        formula,
        scale,
        zero_point,
        resize,
        (height, width),
        None if own else images.formula.mean,
        None if own else images.formula.std,
        None if colours == "rgb" else colours,
        images.size,
    )


def _own(kind: str, end: GraphTensor) -> tuple[str, float, int]:
    """(formula, scale, zero point) of a network as this kit trains it."""
    scale, (zero_point, formula) = PLAIN_SCALE, PLAIN[kind]
    if len(end.scale) == 1 and (*end.scale, *end.zero_point) != (scale, zero_point):
        scale, zero_point = end.scale[0], end.zero_point[0]
        formula = f"{kind} = round((uint8 - 128) / 128 / {scale!r}) + {zero_point}, ties to even"
    return formula, scale, zero_point


def _stated(kind: str, end: GraphTensor, formula: Normalization) -> tuple[str, float, int]:
    means, stds = (", ".join(f"{number:g}" for number in numbers) for numbers in (formula.mean, formula.std))
    (scale,), (zero_point,) = end.scale, end.zero_point
    return f"{kind} = round((uint8 - [{means}]) / [{stds}] / {scale!r}) + {zero_point}, ties to even", scale, zero_point
