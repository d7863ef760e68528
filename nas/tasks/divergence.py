"""How far architectures' integers are from the teacher's outputs before any retraining: one tree over full networks.

The tree of prefixes of a block (`nas.nsr`) goes on in the next block and ends in the head, so architectures that begin
alike share batch-norm statistics, ranges, weights and integer maps up to where they part. Bit for bit the integers are
those of the assembled network, recalibrated layer by layer and quantized as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.segmenter import Encoder
from nas.nsr import Prefix, Tree, widths_of
from nas.quant import simulate
from nas.quant.float_graph import INPUT, Node
from nas.quant.folding import fold_conv, fold_encoder, fold_mbconv
from nas.quant.integer_graph import IntTensor
from nas.quant.ranges import IMAGE_RANGE, activation_parameters
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.simulate import Applied
from nas.space import Architecture, Subnet
from nas.tasks.task import fold
from nas.training.soft_targets import soft_target_loss

OUTSIDE = 8  # bits of weights outside the blocks
LOGITS = "logits"


def as_folded(nodes: Sequence[Node], _: int) -> list[Node]:
    return list(nodes)


@dataclass(frozen=True, eq=False)
class NetworkTree:
    """Architectures assembled from supernets' blocks, as a tree.

    Attributes:
        network: any architecture of the space, with the teacher's stem and head.
        supernets: by block. Their batch norms and those of `network` are overwritten.
        scheme: how networks are quantized; `applied`: the kernels that run them.
    """

    network: Encoder
    supernets: Sequence[SuperBlock]
    scheme: Scheme = DEFAULT
    applied: Applied = simulate.apply
    head: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", head_of(self.network))

    @torch.no_grad()
    def divergences(
        self, calibration: Tensor, evaluation: Tensor, targets: Tensor, architectures: Sequence[Architecture]
    ) -> Iterator[tuple[Architecture, float]]:
        """Each architecture with KL(teacher || its integers), the mean over positions, in an order of the tree's.

        `calibration` and `evaluation` are images (N, 3, H, W), `targets` the teacher's logits for the latter.
        """
        for architecture, logits in self.logits(calibration, evaluation, architectures):
            yield architecture, float(soft_target_loss(logits.reshape(targets.shape), targets, 1.0))

    @torch.no_grad()
    def logits(
        self, calibration: Tensor, evaluation: Tensor, architectures: Sequence[Architecture]
    ) -> Iterator[tuple[Architecture, Tensor]]:
        """The deployed integers' logits (N, classes, h, w) in real values, before they are enlarged."""
        height, width = evaluation.shape[2:]
        source = IntTensor(INPUT, (height, width, 3), *activation_parameters(*IMAGE_RANGE))
        root = self._tree(0).root(calibration, source, [OUTSIDE], evaluation)
        recalibrate(nn.Sequential(self.network.stem, self.network.first), calibration)
        stem = [fold_conv(self.network.stem, "stem", INPUT), *fold_mbconv(self.network.first, "first", "stem")]
        yield from self._behind(0, self._tree(0).append(root, stem, [OUTSIDE], as_folded), architectures)

    def _tree(self, block: int) -> Tree:
        return Tree(self.supernets[block], self.scheme, applied=self.applied)

    def _behind(
        self, block: int, prefix: Prefix, architectures: Sequence[Architecture]
    ) -> Iterator[tuple[Architecture, Tensor]]:
        """All of `architectures`, whose first blocks, so many, are `prefix`."""
        if block == len(self.supernets):
            logits = self._logits(prefix)
            yield from ((architecture, logits) for architecture in architectures)
            return
        below: dict[Subnet, list[Architecture]] = {}
        for architecture in architectures:
            below.setdefault(architecture.subnets[block], []).append(architecture)
        entered = replace(prefix, choices=(), widths=dict.fromkeys(widths_of(below), prefix.widths[OUTSIDE]))
        for leaf, subnet in self._tree(block).traverse(entered, list(below)):
            left = replace(leaf, widths={OUTSIDE: leaf.widths[subnet.bits]})
            yield from self._behind(block + 1, left, below[subnet])

    def _logits(self, prefix: Prefix) -> Tensor:
        recalibrate(self.head, prefix.x)
        height, width, _ = prefix.tensors[INPUT].shape
        nodes = fold(self.network, (height, width))[len(fold_encoder(self.network)) :]
        end = [node.name for node in nodes].index(LOGITS) + 1
        leaf = self._tree(-1).append(prefix, nodes[:end], [OUTSIDE], as_folded)
        q = leaf.widths[OUTSIDE].q
        assert q is not None  # noqa: S101 (for the type checker)
        return simulate.dequantize(q.float(), leaf.tensors[leaf.name])


def head_of(network: Encoder) -> nn.Module:
    """What follows the blocks, from their last map (N, C, h, w) to logits; its modules are those of `network`."""
    head = copy.deepcopy(network)
    for name, part in network.named_children():
        if name == "blocks":
            head.add_module(name, nn.ModuleList())
        else:
            head.add_module(name, nn.Identity() if name in ("stem", "first") else part)
    return head.eval()
