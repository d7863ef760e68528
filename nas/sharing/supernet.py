"""One network that contains every architecture of a space: stem, supernet blocks and head, trained together.

The blocks are those of block-wise distillation (`SuperBlock`), stem and head those of the task's network, so that
methods differ in how they train and search, not in the architectures that they can select.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.segmenter import E, Encoder, assemble, copy_outside_blocks
from nas.networks.start import start_supernets
from nas.space import Architecture, Choice

Path = tuple[tuple[Choice, ...], ...]
"""A choice for each layer of each block: an architecture without its bit widths."""


class _OnPath(nn.Module):
    """A supernet block as a block of a network: it runs the path that was set last."""

    def __init__(self, block: SuperBlock) -> None:
        super().__init__()
        self.block = block
        self.choices: Sequence[Choice] = ()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x, self.choices)
        return y


class Supernet(nn.Module):
    """Images (N, 3, H, W) and a path to logits; `network` is the task's without blocks, and becomes a part of it."""

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.space, self.network = network.space, network
        network.blocks = nn.ModuleList(_OnPath(SuperBlock(self.space, i + 1)) for i in range(len(self.space.blocks)))

    @property
    def blocks(self) -> list[SuperBlock]:
        return [block.block for block in self.network.blocks if isinstance(block, _OnPath)]

    def start(self, teacher: Encoder) -> None:
        """Start from the teacher's stem, head and layers (`nas.networks.start`), in place."""
        copy_outside_blocks(self.network, teacher)
        start_supernets(self.blocks, teacher)

    def forward(self, x: Tensor, path: Path) -> Tensor:
        for block, choices in zip(self.network.blocks, path, strict=True):
            assert isinstance(block, _OnPath)  # noqa: S101 (for the type checker)
            block.choices = choices
        logits: Tensor = self.network(x)
        return logits

    @torch.no_grad()
    def extract(self, model: E, architecture: Architecture, calibration: Tensor) -> E:
        """`model`, a network of `architecture`, with copies of the shared weights.

        Its batch norms are recalibrated on images (N, 3, H, W), N at least 2: the shared statistics are averages over
        other paths (SPOS recomputes them for each candidate).
        """
        assemble(model, self.network, self.blocks, architecture)
        recalibrate(model, calibration)
        return model.eval()
