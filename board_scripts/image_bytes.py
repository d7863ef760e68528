"""Sets a model's inputs as an application does: from an image's bytes, which are an int8 model's plus 128.

Needs Python 3.9 and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def image_setter(numpy: Any, interpreter: Any, inputs: Sequence[tuple[int, Any]]) -> Callable[[], None]:
    """What sets [(tensor index, array)] anew with each call, and takes as long as from the image's bytes."""
    images = [(index, array, array.dtype == numpy.int8) for index, array in inputs]
    images = [(index, array.view(numpy.uint8) ^ 128 if signed else array, signed) for index, array, signed in images]

    def set_images() -> None:
        for index, image, signed in images:
            interpreter.set_tensor(index, (image ^ 128).view(numpy.int8) if signed else image)

    return set_images
