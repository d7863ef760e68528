"""Layers with weights as float nodes, whatever file they come from: convolutions and products."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.formats.importers.builder import NodeBuilder, finite
from deploy.formats.importers.network import Array, Axes, Unsupported, Value
from nas.quant.float_graph import Conv, FullyConnected, TransposedConv
from nas.quant.windows import Window

Real = NDArray[np.float32]


def tensors(weight: Array, bias: Array | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (O, ...) and bias (O,), zeros where there is none."""
    real = np.ascontiguousarray(finite(weight))
    offsets = np.zeros(len(real), np.float32) if bias is None else finite(bias).reshape(-1)
    if len(offsets) != len(real):
        raise Unsupported(f"{len(offsets)} biases for {len(real)} results")
    return torch.from_numpy(real), torch.from_numpy(offsets.copy())


def convolution(
    b: NodeBuilder, name: str, x: tuple[Value, Axes], layer: tuple[Array, Array | None], window: Window
) -> Value:
    """`x` is a tensor and those of its axes that are a map's rows, columns and channels; weight (O, I/groups, k, k)."""
    value, axes = x
    weight, bias = tensors(*layer)
    read = b.arranged(value, axes)
    node = Conv(b.name(name), read, weight, bias, window.stride, window.dilation, padding=window.padding)
    return b.windowed(node, value, axes)


def transposed_convolution(
    b: NodeBuilder, name: str, x: tuple[Value, Axes], layer: tuple[Array, Array | None], window: Window
) -> Value:
    """Weight (O, I, k, k), not dilated; `window.padding` is what is cut off."""
    value, axes = x
    weight, bias = tensors(*layer)
    assert window.padding != "same"  # noqa: S101 (what is cut off depends on the size that is wanted)
    node = TransposedConv(b.name(name), b.arranged(value, axes), weight, bias, window.stride, window.padding)
    return b.windowed(node, value, axes)


def product(b: NodeBuilder, name: str, value: Value, weight: Array, bias: Array | None) -> Value:
    """The last axis of `value` times weight (O, K), plus bias (O,)."""
    last = len(value.shape) - 1
    inputs = value.shape[last]
    if weight.ndim != 2 or weight.shape[1] != inputs:
        raise Unsupported(f"weights {list(weight.shape)} for an axis of {inputs}")
    shape = (*value.shape[:-1], weight.shape[0])
    others = [axis for axis in value.axes if axis is not None and axis != last and value.shape[axis] > 1]
    if not others:
        read = value.tensor if value.deployed_shape in ((inputs,), (1, 1, inputs)) else b.arranged(value, (last,))
        return b.value(FullyConnected(b.name(name), read, *tensors(weight, bias)), shape, (last,))
    if len(others) > 2:
        rows = int(np.prod(value.shape[:-1]))
        flat = product(b, name, b.shaped(value, f"{name}/rows", (1, rows, inputs)), weight, bias)
        return b.shaped(flat, f"{name}/shape", shape)
    axes = (*([None] * (2 - len(others))), *others, last)
    node = Conv(b.name(name), b.arranged(value, axes), *tensors(weight[:, :, None, None], bias))
    return b.value(node, shape, axes)


def affine(b: NodeBuilder, name: str, x: tuple[Value, Axes], factor: Real, shift: Real) -> Value:
    """Each channel of a map times `factor` (C,) plus `shift` (C,): a depthwise 1 x 1 convolution."""
    return convolution(b, name, x, (factor.reshape(-1, 1, 1, 1), shift), Window((1, 1)))
