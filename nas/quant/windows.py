"""Windows that slide over a map: where they begin, and how many fit. Pairs are (rows, columns)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import same_padding

Pair: TypeAlias = "int | tuple[int, int]"
"""One number for rows and columns, or one for each."""
Pads: TypeAlias = tuple[int, int, int, int]
"""Top, bottom, left, right."""
Padding: TypeAlias = "Literal['same'] | Pads"
"""TFLite's SAME, or numbers."""
UNPADDED: Pads = (0, 0, 0, 0)


def pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


@dataclass(frozen=True)
class Window:
    kernel: Pair
    stride: Pair = 1
    dilation: Pair = 1
    padding: Padding = UNPADDED

    def pads(self, size: tuple[int, int]) -> Pads:
        """Around a map of `size`."""
        if self.padding != "same":
            return self.padding
        sides = zip(size, pair(self.kernel), pair(self.stride), pair(self.dilation), strict=True)
        (top, bottom), (left, right) = (same_padding(*side) for side in sides)
        return top, bottom, left, right

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        """A map (N, C, H, W) with what the windows read beyond it."""
        top, bottom, left, right = self.pads((x.shape[2], x.shape[3]))
        return F.pad(x, (left, right, top, bottom), value=value) if top or bottom or left or right else x

    def places(self, size: tuple[int, int]) -> tuple[int, int]:
        """How many windows fit in a map of `size`: the result's height and width."""
        if self.padding == "same":
            vertical, horizontal = pair(self.stride)
            return -(-size[0] // vertical), -(-size[1] // horizontal)
        top, bottom, left, right = self.padding
        room = (size[0] + top + bottom, size[1] + left + right)
        sides = zip(room, pair(self.kernel), pair(self.stride), pair(self.dilation), strict=True)
        rows, columns = ((side - (k - 1) * d - 1) // s + 1 for side, k, s, d in sides)
        return rows, columns
