"""The layers of the family: convolutions padded as TFLite's SAME, MBConv, a block's supernet.

Padding follows TFLite (for stride 2 the surplus goes after, not before), so that what is trained is what is
exported, without a PAD operator. Feature maps are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.space import Choice, SearchSpace, Subnet

ActivationName = Literal["none", "relu", "relu6"]
ACTIVATIONS: Mapping[ActivationName, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
}


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """(before, after) of TFLite's SAME along one axis of length `size`."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, dilation: int, value: float = 0.0) -> Tensor:
    """`x` padded with `value`, so that an unpadded convolution gives ceil(size / stride)."""
    top, bottom = same_padding(x.shape[2], kernel, stride, dilation)
    left, right = same_padding(x.shape[3], kernel, stride, dilation)
    return F.pad(x, (left, right, top, bottom), value=value) if top or bottom or left or right else x


def max_pool_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """The largest value of each SAME window; padding is never the largest."""
    return F.max_pool2d(pad_same(x, kernel, stride, 1, -torch.inf), kernel, stride)


def conv_same(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, dilation: int) -> Tensor:
    """SAME convolution; `weight` is (O, I/groups, k, k) and the groups follow from the shapes."""
    kernel = weight.shape[2]
    groups = x.shape[1] // weight.shape[1]
    plain = (kernel, stride, dilation) == (3, 1, 1)
    if groups > 1 and not plain and x.is_cpu and torch.is_autocast_enabled("cpu"):
        # oneDNN's gradients of other depthwise convolutions take two to seven times as long in bfloat16 as in float32.
        with torch.autocast("cpu", enabled=False):
            return conv_same(x.float(), weight.float(), bias, stride, dilation)
    if stride == 1:  # symmetric, and cheaper inside the convolution
        return F.conv2d(x, weight, bias, 1, dilation * (kernel - 1) // 2, dilation, groups)
    return F.conv2d(pad_same(x, kernel, stride, dilation), weight, bias, stride, 0, dilation, groups)


class ConvBN(nn.Module):
    """Convolution without bias, batch normalization, activation."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: ActivationName = "relu6",
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in // groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out" if groups == 1 else "fan_in")
        self.bn = nn.BatchNorm2d(channels_out)
        self.stride, self.dilation = stride, dilation
        self.activation: ActivationName = activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(conv_same(x, self.weight, None, self.stride, self.dilation))
        return ACTIVATIONS[self.activation](y)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (O, I/groups, k, k) and bias (O,) with batch normalization folded in."""
        bn = self.bn
        assert bn.running_mean is not None and bn.running_var is not None  # noqa: S101 (for the type checker)
        factor = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        return (self.weight * factor[:, None, None, None]).detach(), (bn.bias - bn.running_mean * factor).detach()


class MBConv(nn.Module):
    """Inverted residual: expand 1x1 (absent at expansion 1), depthwise k x k, linear projection 1x1."""

    def __init__(self, geometry: tuple[int, int, int, int], choice: Choice) -> None:
        super().__init__()
        channels_in, channels_out, stride, dilation = geometry
        width = channels_in * choice.expansion
        self.expand = ConvBN(channels_in, width) if choice.expansion > 1 else None
        self.depthwise = ConvBN(width, width, choice.kernel, stride=stride, dilation=dilation, groups=width)
        self.project = ConvBN(width, channels_out, activation="none")
        self.residual = stride == 1 and channels_in == channels_out

    def convolutions(self) -> dict[str, ConvBN]:
        """The convolutions in order, by name."""
        named = {"expand": self.expand, "depthwise": self.depthwise, "project": self.project}
        return {name: conv for name, conv in named.items() if conv is not None}

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.depthwise(x if self.expand is None else self.expand(x))
        y = self.project(y)  # (N, C_out, H/s, W/s)
        return x + y if self.residual else y


class SuperBlock(nn.Module):
    """One block's supernet: one MBConv per layer and choice; no weights are shared."""

    def __init__(self, space: SearchSpace, block: int) -> None:
        super().__init__()
        self.space, self.block = space, block
        self.layers = nn.ModuleList(
            nn.ModuleList(MBConv(space.layer_geometry(block, i), choice) for choice in space.choices)
            for i in range(space.blocks[block - 1].layers)
        )

    def layer(self, index: int, choice: Choice) -> MBConv:
        layer = self.layers[index]
        assert isinstance(layer, nn.ModuleList)  # noqa: S101 (for the type checker)
        chosen = layer[self.space.choices.index(choice)]
        assert isinstance(chosen, MBConv)  # noqa: S101
        return chosen

    def path(self, subnet: Subnet) -> list[MBConv]:
        return [self.layer(i, choice) for i, choice in enumerate(subnet.choices)]

    def forward(self, x: Tensor, choices: Sequence[Choice]) -> Tensor:
        for i, choice in enumerate(choices):
            x = self.layer(i, choice)(x)
        return x


@torch.no_grad()
def recalibrate(module: nn.Module, x: Tensor) -> Tensor:
    """Set every batch norm's statistics in `module` from `x` alone; returns the module's output.

    A path of a supernet needs this before it is evaluated: its statistics were averaged over other paths
    (DNA, arXiv 1911.13053, resets them for every candidate).
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average: after one batch, that batch's statistics
        norm.train()
    y: Tensor = module(x)
    for norm, (momentum, training) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.train(training)
    return y
