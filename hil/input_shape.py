"""The sizes of a model's inputs, where its file leaves them open or another size is wanted than the file's.

Pure and cheap to import: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from urllib.parse import quote, unquote

from hil.errors import UsageError

MOST_ELEMENTS = 2**31 - 1  # TFLite's kernels count in 32 bits
SIZES = re.compile(r"[0-9]{1,10}(x[0-9]{1,10})*|")
PLAIN_SIGNS = "!#$&'()*+./:;<=>?@[]^_`{|}~-"  # a comma would end the entry of a list, a space the word of a shell


@dataclass(frozen=True)
class InputShape:
    """The sizes of one input. Text form: NAME=1x224x224x3, a name's commas, spaces and such percent-encoded.

    Attributes:
        name: the input tensor's, as `hilnas inspect` shows it.
        shape: as the model has its axes, the batch first; empty for a scalar.
    """

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name or any(size < 1 for size in self.shape):
            raise UsageError(f"input shape {self}: give the input's name and sizes of 1 or more, NAME=1x224x224x3")
        if prod(self.shape) > MOST_ELEMENTS:
            raise UsageError(f"input shape {self}: {prod(self.shape)} elements, {MOST_ELEMENTS} at most")

    def __str__(self) -> str:
        return f"{quote(self.name, safe=PLAIN_SIGNS)}={'x'.join(map(str, self.shape))}"

    @classmethod
    def parse(cls, text: str) -> InputShape:
        """Raises UsageError for anything but NAME=1x224x224x3."""
        name, equals, sizes = text.rpartition("=")
        if not (name and equals and SIZES.fullmatch(sizes)):
            raise UsageError(f"input shape {text}: write NAME=1x224x224x3, the input's name and its sizes")
        return cls(unquote(name), tuple(int(size) for size in sizes.split("x") if size))


def text_of(shapes: Iterable[InputShape]) -> str:
    """The one text of all of a model's inputs; "" where they have the sizes of its file."""
    return ",".join(map(str, shapes))


def shapes_in(text: str) -> tuple[InputShape, ...]:
    """The inverse of `text_of`."""
    return tuple(InputShape.parse(entry) for entry in text.split(",") if entry)
