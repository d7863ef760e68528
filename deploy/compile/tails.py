"""What a file leaves to the CPU, as its metadata says: whoever runs the file makes its class map of the logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.formats.tflite.read import ModelInfo, read
from deploy.targets.inspection import inspect_model
from hil.errors import ModelError
from nas.quant.integer_resizing import bilinear
from nas.quant.tails import Sizes

CLASS_MAP = "class_map"
"""The key in the metadata of a file that makes a class map: (H, W) after each resize that the CPU makes before it takes
the arg-max; none: the map is the file's own output. Either way a latency is to the map."""


def class_map_of(model: Path) -> Sizes | None:
    """What a file leaves to the CPU of its class map, () where that is nothing; None for a file that makes no map.

    Raises `ModelError` for a file that is no model, or whose metadata is not as this kit writes it.
    """
    if not model.is_file() or CLASS_MAP.encode() not in model.read_bytes():
        return None  # most files, which need not be parsed; what is missing is said by whoever needs it
    found = read(model)
    try:
        return sizes_in(found)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from None


def sizes_in(model: ModelInfo) -> Sizes | None:
    """`class_map_of`, of a file that was read."""
    sizes = (inspect_model(model).hilnas or {}).get(CLASS_MAP)
    try:
        return None if sizes is None else tuple((int(height), int(width)) for height, width in sizes)
    except (TypeError, ValueError):
        raise ModelError(f"its {CLASS_MAP} is {str(sizes)[:100]!r}, not [height, width] of each resize") from None


def classes_of(logits: NDArray[np.generic], sizes: Sizes) -> NDArray[np.int64]:
    """The class map (H, W) of a file's logits (1, h, w, C), as the board's CPU makes it, by the simulation's rules.

    Without `sizes` it is what was given, (1, H, W) or (1, H, W, 1).
    """
    if not sizes:
        return logits.reshape(logits.shape[1:3]).astype(np.int64)
    q = torch.from_numpy(logits.astype(np.float32)).permute(0, 3, 1, 2)
    for size in sizes:
        q = bilinear(q, size)
    return np.asarray(q.argmax(1)[0].numpy(), np.int64)
