"""Float operators: shapes as they are predicted and as they come out, and rules that brute force can check."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import QuantizationError
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    AveragePool,
    Clip,
    Concat,
    Const,
    Conv,
    DepthToSpace,
    FullyConnected,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mean,
    Mul,
    Pad,
    PRelu,
    Reshape,
    Resize,
    Sigmoid,
    Slice,
    Softmax,
    SpaceToDepth,
    Sub,
    Tanh,
    Transpose,
    TransposedConv,
    run,
)
from nas.quant.shapes import shapes_of

SHAPE = (6, 8, 4)  # H, W, C
NODES = (
    Conv("y", INPUT, torch.randn(6, 4, 3, 2), torch.randn(6), (2, 1), padding=(1, 0, 2, 1)),
    Conv("y", INPUT, torch.randn(6, 2, 3, 3), torch.randn(6), 2, 2),
    Conv("y", INPUT, torch.randn(6, 4, 2, 2), torch.randn(6)),
    TransposedConv("y", INPUT, torch.randn(6, 4, 3, 2), torch.randn(6), (2, 1), (1, -1, 0, 1)),
    AveragePool("y", INPUT, (3, 2), (2, 1), (1, 1, 0, 1)),
    MaxPool("y", INPUT, (3, 2), (2, 1), (1, 1, 0, 1)),
    Pad("y", INPUT, (1, 2), (0, 3), (2, 0)),
    Mean("y", INPUT, (-1,)),
    Resize("y", INPUT, (9, 5), "nearest", "asymmetric"),
    Concat("y", (INPUT, INPUT), -2),
    Slice("y", INPUT, (1, 7, 0), (2, 4, 4), (2, -2, 1)),
    Reshape("y", INPUT, (12, -1)),
    Reshape("y", INPUT, (-1,)),
    Transpose("y", INPUT, (-1, -3, -2)),
    SpaceToDepth("y", INPUT, 2),
    DepthToSpace("y", INPUT, 2),
    ArgMax("y", INPUT, -3),
    Softmax("y", INPUT),
    *(kind("y", INPUT) for kind in (Sigmoid, Tanh, HardSwish)),
    Clip("y", INPUT, -1.0, 2.0),
    LeakyRelu("y", INPUT, 0.1),
    PRelu("y", INPUT, torch.randn(1, 4, 1, 1)),
)


@pytest.mark.parametrize("node", NODES, ids=lambda node: type(node).__name__)
def test_a_shape_is_what_comes_out(node):
    height, width, channels = SHAPE
    y = run([node], {INPUT: torch.randn(2, channels, height, width)})
    predicted = shapes_of([node], SHAPE)["y"]
    assert tuple(to_file_order(y).shape) == (2, *predicted)


@pytest.mark.parametrize("kind", [Add, Sub, Mul])
def test_operands_are_broadcast_in_the_files_order(kind):
    """A vector meets a map in its channels."""
    value = torch.randn(1, 4, 1, 1)
    nodes = [Const("c", value), kind("y", INPUT, "c", "relu6")]
    x = torch.randn(2, 6, 8, 4)
    y = to_file_order(run(nodes, {INPUT: from_file_order(x)}))
    symbol = {Add: np.add, Sub: np.subtract, Mul: np.multiply}[kind]
    torch.testing.assert_close(y, torch.from_numpy(symbol(x.numpy(), value.numpy().reshape(4))).clamp(0, 6))
    assert shapes_of(nodes, SHAPE)["y"] == SHAPE


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99),
    st.tuples(st.integers(3, 8), st.integers(3, 8)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.one_of(st.just("same"), st.tuples(*[st.integers(0, 2)] * 4)),
)
def test_padding_is_not_counted_in_a_mean_nor_the_largest(seed, size, kernel, stride, padding):
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(seed)) - 5
    pools = [kind("y", INPUT, kernel, stride, padding) for kind in (AveragePool, MaxPool)]
    top, bottom, left, right = pools[0].window.pads(size)
    if top >= kernel[0] or bottom >= kernel[0] or left >= kernel[1] or right >= kernel[1]:
        return  # a window of nothing but padding
    means, largest = (run([pool], {INPUT: x}) for pool in pools)
    for i in range(means.shape[2]):
        for j in range(means.shape[3]):
            first, second = i * stride[0] - top, j * stride[1] - left
            window = x[:, :, max(first, 0) : first + kernel[0], max(second, 0) : second + kernel[1]]
            torch.testing.assert_close(means[:, :, i, j], window.mean((2, 3)))
            torch.testing.assert_close(largest[:, :, i, j], window.amax((2, 3)))


def test_blocks_are_their_own_inverse():
    x = torch.randn(2, 3, 6, 8)
    y = run([SpaceToDepth("s", INPUT, 2), DepthToSpace("y", "s", 2)], {INPUT: x})
    torch.testing.assert_close(y, x)
    positions = run([SpaceToDepth("s", INPUT, 2)], {INPUT: x})
    torch.testing.assert_close(positions[:, 3:6], x[:, :, ::2, 1::2])  # a block's first row, second column


def test_the_transpose_of_a_convolution_is_its_gradient():
    weight = torch.randn(4, 6, 3, 3)
    x = torch.randn(1, 6, 9, 9, requires_grad=True)
    y = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
    change = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, change)
    node = TransposedConv("y", INPUT, weight.transpose(0, 1), torch.zeros(6), 2, (1, 1, 1, 1))
    torch.testing.assert_close(run([node], {INPUT: change}), gradient)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([Conv("y", INPUT, torch.randn(5, 2, 3, 3), torch.randn(5))], "'y' has weights for 2 channels"),
        ([TransposedConv("y", INPUT, torch.randn(5, 2, 3, 3), torch.randn(5))], "'y' has weights for 2 channels"),
        ([FullyConnected("y", INPUT, torch.randn(5, 4), torch.randn(5))], "flatten or average"),
        ([Reshape("y", INPUT, (5, -1))], "give it as many elements"),
        ([Concat("y", (INPUT, INPUT)), Mul("z", INPUT, "y")], "multiplication 'z' reads maps of different shapes"),
    ],
)
def test_what_does_not_fit_is_named(nodes, words):
    with pytest.raises(QuantizationError, match=words):
        shapes_of(nodes, SHAPE)
