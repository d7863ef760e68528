"""What a file leaves to the CPU, as its metadata says: whoever runs the file makes its class map of the logits."""

from __future__ import annotations

from pathlib import Path

from deploy.formats.tflite.read import read
from deploy.targets.inspection import inspect_model
from hil.errors import ModelError
from nas.quant.tails import Sizes

CLASS_MAP = "class_map"
"""The key in the file's metadata: (H, W) after each resize before the arg-max. Without it the outputs are the result."""


def class_map_of(model: Path) -> Sizes | None:
    """The resizes before the arg-max that a file leaves to the CPU; None where its outputs are the result.

    Raises `ModelError` for a file that is no model, or whose metadata is not as this kit writes it.
    """
    if CLASS_MAP.encode() not in model.read_bytes():
        return None  # most files, which need not be parsed
    sizes = (inspect_model(read(model)).hilnas or {}).get(CLASS_MAP)
    if sizes is None:
        return None
    try:
        return tuple((int(height), int(width)) for height, width in sizes)
    except (TypeError, ValueError):
        raise ModelError(f"{model}: its {CLASS_MAP} is {str(sizes)[:100]!r}, not [height, width] of each resize") from None
