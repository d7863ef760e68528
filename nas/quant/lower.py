"""Quantize: float operators and their tensors' ranges become an `IntegerGraph`.

Weights are symmetric (per channel or per tensor), activations asymmetric int8:
S = (beta - alpha) / (2^b - 1) (QA-BWNAS, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from nas.errors import QuantizationError
from nas.quant.float_graph import INPUT, Add, Concat, Conv, Mean, Node, Resize, inputs_of
from nas.quant.integer_graph import (
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QConcat,
    QConv,
    QMean,
    QResize,
)
from nas.quant.ranges import Parameters, Range, activation_parameters
from nas.quant.scheme import Granularity

NARROWEST = 1e-6  # a narrower range has a scale in which TFLite's kernels overflow (6 / scale leaves int32)


def quantize_weight(
    conv: Conv, input_scale: float, granularity: Granularity
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32]]:
    """Weight (O, I/groups, k, k), its scales (O,) or (1,), and the bias in units of input x weight scale."""
    weight, bias = conv.weight.numpy(), conv.bias.numpy().astype(np.float64)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise QuantizationError(f"convolution '{conv.name}' holds NaN or infinity: the network diverged; retrain it")
    qmax = 2 ** (conv.bits - 1) - 1
    peak = np.abs(weight).max(axis=(1, 2, 3)).astype(np.float64)
    # A (nearly) dead channel keeps its bias: the scale is never so small that the bias leaves int32.
    scale = np.maximum(np.maximum(peak / qmax, np.abs(bias) / (input_scale * 2.0**30)), 1e-12)
    if granularity == "tensor":
        scale = scale.max(keepdims=True)
    scale32 = scale.astype(np.float32)
    # Reciprocals in float32, as the TensorFlow converter takes them: the same ties fall the same way.
    inverse = np.float32(1) / scale32
    quantized = np.rint(weight * inverse[:, None, None, None]).clip(-qmax, qmax).astype(np.int8)
    per_unit = np.float32(1) / (scale32 * np.float32(input_scale))
    return quantized, scale32, np.rint(conv.bias.numpy() * per_unit).astype(np.int32)


def _lower_conv(conv: Conv, x: IntTensor, y: IntTensor, granularity: Granularity) -> QConv:
    weight, scale, bias = quantize_weight(conv, x.scale, granularity)
    ratio = np.float32(x.scale) * scale / np.float32(y.scale)
    if float(ratio.max()) >= 256:
        raise QuantizationError(
            f"convolution '{conv.name}': requantization scale {ratio.max():.3g} is out of "
            "TFLite's range; its output's range is too narrow for its weights"
        )
    depthwise = conv.weight.shape[1] == 1 and conv.weight.shape[0] == x.shape[2]
    layout = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    return QConv(
        conv.name,
        conv.x,
        np.ascontiguousarray(weight.transpose(layout)),
        scale,
        bias,
        conv.stride,
        conv.dilation,
        depthwise,
        conv.activation,
        conv.bits,
    )


def _output_shape(node: Node, shapes: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    height, width, channels = shapes[0]
    if isinstance(node, Conv):
        return -(-height // node.stride), -(-width // node.stride), node.weight.shape[0]
    if isinstance(node, Add):
        return shapes[0]
    if isinstance(node, Mean):
        return 1, 1, channels
    if isinstance(node, Resize):
        return *node.size, channels
    if isinstance(node, Concat):
        return height, width, sum(shape[2] for shape in shapes)
    return height, width, 1


def parameters_of(ranges: Mapping[str, Range]) -> dict[str, Parameters]:
    """Scale and zero point of every tensor, from its range."""
    for name, (low, high) in ranges.items():
        if max(high, 0.0) - min(low, 0.0) < NARROWEST:
            raise QuantizationError(
                f"tensor '{name}' is zero on all calibration images (range {low:g} to {high:g}): "
                "its layer is dead; retrain it, or calibrate on more images"
            )
    return {name: activation_parameters(low, high) for name, (low, high) in ranges.items()}


def lower_nodes(
    nodes: Iterable[Node],
    tensors: dict[str, IntTensor],
    parameters: Mapping[str, Parameters],
    granularity: Granularity = "channel",
) -> list[Operator]:
    """The integer operators of `nodes`, given the tensors that they read; results are added to `tensors`.

    Works piece by piece: lowering a block layer by layer gives the same operators as lowering it at once.
    """
    operators: list[Operator] = []
    for node in nodes:
        read = [tensors[name] for name in inputs_of(node)]
        shape = _output_shape(node, [tensor.shape for tensor in read])
        scale, zero_point = parameters[node.name]
        operator: Operator
        if isinstance(node, Conv):
            tensor = IntTensor(node.name, shape, scale, zero_point)
            operator = _lower_conv(node, read[0], tensor, granularity)
        elif isinstance(node, Add):
            tensor, operator = IntTensor(node.name, shape, scale, zero_point), QAdd(node.name, node.a, node.b)
        elif isinstance(node, Mean):
            tensor, operator = IntTensor(node.name, shape, scale, zero_point), QMean(node.name, node.x)
        elif isinstance(node, Resize):
            tensor = IntTensor(node.name, shape, read[0].scale, read[0].zero_point)
            operator = QResize(node.name, node.x)
        elif isinstance(node, Concat):
            tensor = IntTensor(node.name, shape, read[0].scale, read[0].zero_point)
            operator = QConcat(node.name, node.xs)
        else:
            tensor, operator = IntTensor(node.name, shape, 1.0, 0, "int32"), QArgMax(node.name, node.x)
        tensors[node.name] = tensor
        operators.append(operator)
    return operators


def lower(
    nodes: Iterable[Node],
    ranges: Mapping[str, Range],
    input_shape: tuple[int, int, int],
    granularity: Granularity = "channel",
) -> IntegerGraph:
    """The `IntegerGraph` of a whole list of nodes that read `INPUT` of shape (H, W, C)."""
    parameters = parameters_of(ranges)
    tensors = {INPUT: IntTensor(INPUT, input_shape, *parameters[INPUT])}
    operators = lower_nodes(nodes, tensors, parameters, granularity)
    return IntegerGraph(tensors, tuple(operators), INPUT)
