"""Kernels, strides and paddings of any shape, on maps (N, C, H, W) of whatever holds their integers exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import conv_same, same_padding
from nas.quant.integer_graph import UNPADDED, Padding, Pair, QAveragePool, QConv, QMaxPool, QTransposedConv, pair

Sides = tuple[int, int, int, int]  # top, bottom, left, right


def same_sides(size: Pair, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Sides:
    """What SAME pads around a map of `size`."""
    vertical, horizontal = (same_padding(*axis) for axis in zip(size, kernel, stride, dilation, strict=True))
    return *vertical, *horizontal


def sides(padding: Padding, size: Pair, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Sides:
    return same_sides(size, kernel, stride, dilation) if padding == "same" else padding


def padded(x: Tensor, around: Sides, value: float = 0.0) -> Tensor:
    top, bottom, left, right = around
    return F.pad(x, (left, right, top, bottom), value=value) if any(around) else x


def kernel_of(op: QConv | QTransposedConv) -> Pair:
    _, height, width, _ = op.weight.shape
    return height, width


def _size(x: Tensor) -> Pair:
    return x.shape[2], x.shape[3]


def convolved(x: Tensor, weight: Tensor, bias: Tensor, op: QConv) -> Tensor:
    """The convolution of `x` with `weight` (O, I/groups, k, k); the groups follow from the shapes."""
    square = kernel_of(op)[0] == kernel_of(op)[1]
    if square and op.padding == "same" and isinstance(op.stride, int) and isinstance(op.dilation, int):
        return conv_same(x, weight, bias, op.stride, op.dilation)
    stride, dilation = pair(op.stride), pair(op.dilation)
    around = sides(op.padding, _size(x), kernel_of(op), stride, dilation)
    return F.conv2d(padded(x, around), weight, bias, stride, 0, dilation, x.shape[1] // weight.shape[1])


def transposed_sides(padding: Padding, size: Pair, kernel: Pair, stride: Pair) -> Sides:
    """What a transposed convolution of a map of `size` leaves out of its full result."""
    if padding != "same":
        return padding
    return same_sides((size[0] * stride[0], size[1] * stride[1]), kernel, stride)


def transposed(x: Tensor, weight: Tensor, bias: Tensor, op: QTransposedConv) -> Tensor:
    """The transposed convolution of `x` with `weight` (O, I, k, k)."""
    kernel, stride, size = kernel_of(op), pair(op.stride), _size(x)
    top, bottom, left, right = transposed_sides(op.padding, size, kernel, stride)
    if op.padding == "same":  # a kernel below the stride leaves zeros after the last row
        bottom, right = kernel[0] - stride[0] - top, kernel[1] - stride[1] - left
    y = F.conv_transpose2d(x, weight.transpose(0, 1), None, stride)
    return F.pad(y, (-left, -right, -top, -bottom)) + bias[:, None, None]


def largest(x: Tensor, op: QMaxPool) -> Tensor:
    """The largest value of each window."""
    kernel, stride = pair(op.kernel), pair(op.stride)
    return F.max_pool2d(padded(x, sides(op.padding, _size(x), kernel, stride), -torch.inf), kernel, stride)


def sums(x: Tensor, op: QAveragePool) -> tuple[Tensor, Tensor | int]:
    """The sum of each window, and of how many values it is."""
    kernel, stride = pair(op.kernel), pair(op.stride)
    around = sides(op.padding, _size(x), kernel, stride)
    total = F.avg_pool2d(padded(x, around), kernel, stride, divisor_override=1)
    if around == UNPADDED:
        return total, kernel[0] * kernel[1]
    return total, F.avg_pool2d(padded(torch.ones_like(x[:1, :1]), around), kernel, stride, divisor_override=1)
