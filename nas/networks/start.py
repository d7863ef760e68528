"""Students that start from the teacher: every layer of a block takes over what the teacher's block holds.

Layer j copies the teacher's layer j. A larger kernel holds the teacher's in its middle, zeros around; a smaller one is
its middle. (TFLite's SAME padding puts a 1x1 window of stride 2 elsewhere than a larger one's middle: such a layer
starts only near the teacher's.) A smaller expansion keeps the hidden channels that matter most (`importance`); a larger
one splits them, the most important first, with the same sum (Net2Net's wider layers, arXiv 1511.05641, with unequal
shares, so that the parts do not learn alike).

A layer beyond the teacher's depth is a residual whose last batch norm's scale and shift are zero: it adds nothing until
it is trained. Of a teacher deeper than the student, the residuals that add least are left out. So a space whose choices
and depths include the teacher's contains the teacher itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nas.networks.blocks import MBConv, SuperBlock
from nas.networks.segmenter import Encoder, copy_outside_blocks


@torch.no_grad()
def start_supernets(supernets: Iterable[SuperBlock], teacher: Encoder) -> None:
    """Start every layer and choice of the supernets from the teacher's block of the same number, in place."""
    for supernet in supernets:
        for i, choices in enumerate(supernet.layers):
            _start(cast(nn.ModuleList, choices), i, len(supernet.layers), _layers(teacher.blocks[supernet.block - 1]))


@torch.no_grad()
def start_network(model: Encoder, teacher: Encoder) -> None:
    """Start a network from the teacher's stem, head and blocks, in place; the depths of their blocks may differ."""
    copy_outside_blocks(model, teacher)
    for block, taught in zip(model.blocks, teacher.blocks, strict=True):
        layers = _layers(block)
        for i, layer in enumerate(layers):
            _start([layer], i, len(layers), _layers(taught))


def _layers(block: nn.Module) -> list[MBConv]:
    return [layer for layer in block.children() if isinstance(layer, MBConv)]


def _start(candidates: Iterable[nn.Module], index: int, depth: int, teacher: Sequence[MBConv]) -> None:
    """Start the candidates for layer `index` of a student's block with `depth` layers."""
    copied = kept_layers(teacher, depth)
    source = teacher[copied[min(index, len(copied) - 1)]]
    for layer in candidates:
        assert isinstance(layer, MBConv)  # noqa: S101 (for the type checker)
        start_layer(layer, source)
        if index >= len(copied):
            nn.init.zeros_(layer.project.bn.weight)
            nn.init.zeros_(layer.project.bn.bias)


def kept_layers(teacher: Sequence[MBConv], depth: int) -> list[int]:
    """Which of a teacher's layers a block of `depth` layers starts from: the first, then those that add most, in order.

    A residual adds its last batch norm's output, whose power is its scale's and shift's squares.
    """
    norms = [layer.project.bn for layer in teacher]
    added = [float((norm.weight.square() + norm.bias.square()).detach().sum()) for norm in norms]
    later = sorted(range(1, len(teacher)), key=lambda i: -added[i])[: max(0, depth - 1)]
    return [0, *sorted(later)]


def start_layer(layer: MBConv, source: MBConv) -> None:
    """Start `layer` from a teacher's layer; where only one of the two expands its input, nothing is alike but the end.

    Layers of other channels than the teacher's keep their random weights.
    """
    if layer.project.weight.shape[0] != source.project.weight.shape[0]:
        return
    if (layer.expand is None) != (source.expand is None):
        return
    if layer.expand is not None and source.expand is not None:
        if layer.expand.weight.shape[1] != source.expand.weight.shape[1]:
            return
        channels, shares = hidden_channels(source, len(layer.expand.weight))
        layer.expand.weight.copy_(source.expand.weight[channels])
        _copy_norm(layer.expand.bn, source.expand.bn, channels)
    else:
        if len(layer.depthwise.weight) != len(source.depthwise.weight):
            return
        channels, shares = hidden_channels(source, len(source.depthwise.weight))
    layer.depthwise.weight.copy_(centred(source.depthwise.weight[channels], layer.depthwise.weight.shape[2]))
    _copy_norm(layer.depthwise.bn, source.depthwise.bn, channels)
    layer.project.weight.copy_(source.project.weight[:, channels] * shares[:, None, None])
    _copy_norm(layer.project.bn, source.project.bn, torch.arange(len(source.project.weight)))


def importance(layer: MBConv) -> Tensor:
    """How much each hidden channel (C,) adds to the output.

    The gain of the depthwise batch norm, times the norm of the channel's column in the projection with its batch norm
    folded.
    """
    weight, _ = layer.project.folded()
    columns: Tensor = torch.linalg.vector_norm(weight[:, :, 0, 0], dim=0)
    return layer.depthwise.bn.weight.abs() * columns


def hidden_channels(source: MBConv, count: int) -> tuple[Tensor, Tensor]:
    """For each of `count` hidden channels (in the teacher's order) the teacher's channel, and its share of it.

    Shares of a channel that is split are as 1 : 2 : ... and sum to 1.
    """
    found = len(source.depthwise.weight)
    order = torch.argsort(importance(source), descending=True, stable=True)
    times = torch.full((found,), count // found)
    times[order[: count % found]] += 1
    channels = torch.repeat_interleave(torch.arange(found), times)
    parts = torch.cat([torch.arange(1, int(n) + 1, dtype=torch.float32) / (n * (n + 1) / 2) for n in times])
    return channels, parts


def centred(weight: Tensor, kernel: int) -> Tensor:
    """Weights (O, I, k, k) in another odd size, with the same middle: zeros around it, or what is around it cut off."""
    margin = (kernel - weight.shape[2]) // 2
    return nn.functional.pad(weight, (margin,) * 4)


def _copy_norm(norm: nn.BatchNorm2d, source: nn.BatchNorm2d, channels: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).copy_(getattr(source, name)[channels])
