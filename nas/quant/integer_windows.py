"""Convolutions and pooling windows of any shape, on maps (N, C, H, W) of whatever type holds their integers exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.networks.blocks import conv_same
from nas.quant.integer_graph import QAveragePool, QConv, QMaxPool, QTransposedConv
from nas.quant.windows import UNPADDED, Pads, Window, pair


def window_of(op: QConv | QAveragePool | QMaxPool) -> Window:
    if isinstance(op, QConv):
        return Window(kernel_of(op), op.stride, op.dilation, op.padding)
    return Window(op.kernel, op.stride, padding=op.padding)


def kernel_of(op: QConv | QTransposedConv) -> tuple[int, int]:
    _, height, width, _ = op.weight.shape
    return height, width


def convolved(x: Tensor, weight: Tensor, bias: Tensor, op: QConv) -> Tensor:
    """The convolution of `x` with `weight` (O, I/groups, k, k); the groups follow from the shapes."""
    height, width = kernel_of(op)
    as_searched = height == width and width % 2 and op.padding == "same"
    if as_searched and isinstance(op.stride, int) and isinstance(op.dilation, int):
        return conv_same(x, weight, bias, op.stride, op.dilation)
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(window_of(op).padded(x), weight, bias, pair(op.stride), 0, pair(op.dilation), groups)


def cut_sides(op: QTransposedConv, size: tuple[int, int]) -> Pads:
    """What a transposed convolution of a map of `size` leaves out of its full result.

    Below zero where SAME adds zeros to it, after a kernel below the stride.
    """
    if op.padding != "same":
        return op.padding
    kernel, (rows, columns) = kernel_of(op), pair(op.stride)
    top, _, left, _ = Window(kernel, op.stride, padding="same").pads((size[0] * rows, size[1] * columns))
    return top, kernel[0] - rows - top, left, kernel[1] - columns - left


def transposed(x: Tensor, weight: Tensor, bias: Tensor, op: QTransposedConv) -> Tensor:
    """The transposed convolution of `x` with `weight` (O, I, k, k)."""
    top, bottom, left, right = cut_sides(op, (x.shape[2], x.shape[3]))
    y = F.conv_transpose2d(x, weight.transpose(0, 1), None, pair(op.stride))
    return F.pad(y, (-left, -right, -top, -bottom)) + bias[:, None, None]


def largest(x: Tensor, op: QMaxPool) -> Tensor:
    """The largest integer of each window; int8's smallest pads, which changes no maximum."""
    return F.max_pool2d(window_of(op).padded(x, -128), pair(op.kernel), pair(op.stride))


def sums(x: Tensor, op: QAveragePool) -> tuple[Tensor, Tensor]:
    """The sum of each window, and of how many integers it is."""
    kernel, stride = pair(op.kernel), pair(op.stride)

    def summed(part: Tensor, window: Window) -> Tensor:
        return F.avg_pool2d(window.padded(part), kernel, stride, divisor_override=1)

    window = window_of(op)
    if window.padding == UNPADDED:
        return summed(x, window), torch.tensor(kernel[0] * kernel[1], device=x.device)
    return summed(x, window), summed(torch.ones_like(x[:1, :1]), window)
