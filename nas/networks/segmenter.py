"""The segmentation network: a MobileNetV2-like encoder in blocks and DeepLabV3's ASPP head.

Teacher and students are one class: the teacher's layers are those that its space names.
Reference: MMSegmentation's deeplabv3_m-v2-d8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.networks.blocks import ConvBN, MBConv, SuperBlock
from nas.settings import STRICT
from nas.space import Architecture, Choice, SearchSpace


@dataclass(frozen=True)
class Auxiliary:
    """A second head on a block's map, in training only, as MMSegmentation's FCNHead: 3x3, 1x1.

    Attributes:
        block: whose map it reads, from 1.
        channels: of the 3x3 convolution.
        weight: of its loss beside the head's.
    """

    block: int
    channels: int = 256
    weight: float = 0.4
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Head:
    """The head of segmentation, ASPP: dilated 3x3 branches, a 1x1 and a pooled branch.

    Attributes:
        channels: of each branch.
        rates: dilations of the 3x3 branches.
        dropout: of whole channels before the classifiers, in training only (the reference teacher has 0.1).
        auxiliary: a second head, in training only.
    """

    channels: int = 512
    rates: tuple[int, ...] = (12, 24, 36)
    dropout: float = 0.0
    auxiliary: Auxiliary | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"head.dropout {self.dropout}: give a share from 0 to below 1")


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling, 3x3 bottleneck, 1x1 classifier: (N, C, h, w) to (N, classes, h, w)."""

    def __init__(self, channels_in: int, classes: int, head: Head) -> None:
        super().__init__()
        width = head.channels
        self.pointwise = ConvBN(channels_in, width)
        self.dilated = nn.ModuleList(ConvBN(channels_in, width, 3, dilation=rate) for rate in head.rates)
        self.pooled = ConvBN(channels_in, width)
        self.bottleneck = ConvBN(width * (2 + len(head.rates)), width, 3)
        self.dropout = nn.Dropout2d(head.dropout)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [self.pointwise(x), *(branch(x) for branch in self.dilated), pooled]
        logits: Tensor = self.classifier(self.dropout(self.bottleneck(torch.cat(branches, 1))))
        return logits


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network gives in training.

    Attributes:
        maps: the feature maps at the block boundaries, (N, C, H, W).
        logits: (N, classes, ...).
        auxiliary: the auxiliary head's logits; None without one.
        auxiliary_weight: of their loss.
    """

    maps: list[Tensor]
    logits: Tensor
    auxiliary: Tensor | None = None
    auxiliary_weight: float = 0.0


class Encoder(nn.Module, ABC):
    """Stem, first inverted residual, blocks: (N, 3, H, W) to (N, C, H/s, W/s); what networks derive from.

    A network's forward pass is that of its `head_of` on the last map.
    """

    def __init__(self, space: SearchSpace, layers: Sequence[Sequence[Choice]]) -> None:
        super().__init__()
        self.space = space
        self.stem = ConvBN(3, space.stem_channels, 3, stride=2)
        self.first = MBConv((space.stem_channels, space.first_channels, 1, 1), Choice(3, 1))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(MBConv(space.layer_geometry(i, j), choice) for j, choice in enumerate(choices)))
            for i, choices in enumerate(layers, start=1)
        )

    @property
    def output_stride(self) -> int:
        return self.space.output_stride

    def boundaries(self, x: Tensor) -> list[Tensor]:
        """The feature maps at the block boundaries: what enters block 1, then what leaves each block."""
        maps = [self.first(self.stem(x))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    @abstractmethod
    def head_of(self, x: Tensor) -> Tensor:
        """The logits of the last block's map (N, C, H/s, W/s)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head_of(self.boundaries(x)[-1])

    def outputs(self, x: Tensor) -> Outputs:
        """All that a training's losses may ask for."""
        maps = self.boundaries(x)
        return Outputs(maps, self.head_of(maps[-1]))


E = TypeVar("E", bound=Encoder)


class Segmenter(Encoder):
    """The encoder and the head: (N, 3, H, W) to logits (N, classes, H/s, W/s)."""

    def __init__(self, space: SearchSpace, layers: Sequence[Sequence[Choice]], classes: int, head: Head) -> None:
        super().__init__(space, layers)
        self.head = ASPP(space.blocks[-1].channels, classes, head)
        self.auxiliary_settings = head.auxiliary
        self.auxiliary = _auxiliary(space, classes, head)

    def head_of(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x)
        return logits

    def outputs(self, x: Tensor) -> Outputs:
        plain = super().outputs(x)
        if self.auxiliary_settings is None or self.auxiliary is None:
            return plain
        return replace(
            plain,
            auxiliary=self.auxiliary(plain.maps[self.auxiliary_settings.block]),
            auxiliary_weight=self.auxiliary_settings.weight,
        )


def _auxiliary(space: SearchSpace, classes: int, head: Head) -> nn.Sequential | None:
    settings = head.auxiliary
    if settings is None:
        return None
    if not 1 <= settings.block <= len(space.blocks):
        raise ConfigError(f"head.auxiliary.block {settings.block}: the space has blocks 1 to {len(space.blocks)}")
    return nn.Sequential(
        ConvBN(space.blocks[settings.block - 1].channels, settings.channels, 3),
        nn.Dropout2d(head.dropout),
        nn.Conv2d(settings.channels, classes, 1),
    )


def teacher(space: SearchSpace, classes: int, head: Head) -> Segmenter:
    """DeepLabV3 with the space's teacher as encoder."""
    return Segmenter(space, space.teacher_layers, classes, head)


def student(space: SearchSpace, architecture: Architecture, classes: int, head: Head) -> Segmenter:
    """An untrained network of `architecture`."""
    space.check(architecture)
    return Segmenter(space, [subnet.choices for subnet in architecture.subnets], classes, head)


def assemble(model: E, teacher_model: E, supernets: Sequence[SuperBlock], architecture: Architecture) -> E:
    """`model` with the teacher's stem and head and the supernets' blocks for `architecture`, copied."""
    copy_outside_blocks(model, teacher_model)
    for block, supernet, subnet in zip(model.blocks, supernets, architecture.subnets, strict=True):
        assert isinstance(block, nn.Sequential)  # noqa: S101 (for the type checker)
        for layer, trained in zip(block, supernet.path(subnet), strict=True):
            layer.load_state_dict(trained.state_dict())
    return model


def copy_outside_blocks(model: Encoder, teacher_model: Encoder) -> None:
    """Copy the teacher's parts outside the blocks: stem, first layer, head."""
    for name, part in model.named_children():
        if name != "blocks":
            part.load_state_dict(getattr(teacher_model, name).state_dict())


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits at the image's size, as the deployed RESIZE_BILINEAR (half-pixel centres) does."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def load_encoder(model: Encoder, convolutions: Sequence[tuple[Tensor, Tensor]], images: Tensor) -> None:
    """Start the encoder of `model` from a folded MobileNetV2: (weight (O, I/groups, k, k), bias (O,)) in order.

    The batch norms are set so that, on `images` (N, 3, H, W), they add the bias and change nothing else: their
    statistics are measured on `images`, and their scale and shift undo them. Raises `ConfigError` where the
    shapes are not the encoder's.
    """
    layers = [model.stem, *model.first.convolutions().values()]
    for block in model.blocks:
        layers += [m for m in block.modules() if isinstance(m, ConvBN)]
    if len(convolutions) < len(layers):
        raise ConfigError(f"the encoder has {len(layers)} convolutions, the file only {len(convolutions)}")
    for i, (layer, (weight, _)) in enumerate(zip(layers, convolutions, strict=False)):
        if layer.weight.shape != weight.shape:
            raise ConfigError(
                f"convolution {i} of the encoder is {tuple(layer.weight.shape)}, the file's is "
                f"{tuple(weight.shape)}: take a space of MobileNetV2's widths (table1)"
            )
    hooks = []
    for layer, (weight, bias) in zip(layers, convolutions, strict=False):
        layer.weight.data.copy_(weight)
        hooks.append(layer.bn.register_forward_pre_hook(_Identity(bias)))
    was_training = model.training
    model.eval()
    with torch.no_grad():
        model.boundaries(images)
    model.train(was_training)
    for hook in hooks:
        hook.remove()


class _Identity:
    """A hook that makes a batch norm add `bias` and nothing else, with its input's own statistics."""

    def __init__(self, bias: Tensor) -> None:
        self.bias = bias

    def __call__(self, bn: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(bn, nn.BatchNorm2d)  # noqa: S101 (for the type checker)
        assert bn.running_mean is not None and bn.running_var is not None  # noqa: S101
        var, mean = torch.var_mean(inputs[0], (0, 2, 3), unbiased=False)
        bn.running_mean.copy_(mean)
        bn.running_var.copy_(var)
        bn.weight.data.copy_(torch.sqrt(var + bn.eps))
        bn.bias.data.copy_(self.bias + mean)
