"""The reference path: folded float nodes through TensorFlow's converter, and what its file has in common with ours.

The converter calibrates for itself. `equivalent` therefore quantizes the same nodes with the parameters that it
chose: the file written from that graph has to give the outputs of the converter's file, bit for bit, on any kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deploy.formats.tflite.read import ModelInfo, OperatorInfo
from hil.errors import ModelError, UsageError
from nas.networks.blocks import ActivationName
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    FullyConnected,
    MaxPool,
    Mean,
    Node,
    Pad,
    Reshape,
    Resize,
    Softmax,
    inputs_of,
)
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator, QConv, Weighted
from nas.quant.lower import lower_nodes
from nas.quant.ranges import Parameters

SMALLEST_WEIGHT_SCALE = np.float32(5e-7 / 127)  # the converter's, of weights in [-5e-7, 5e-7]


@dataclass(frozen=True)
class Difference:
    """How two integer outputs differ: the fraction of equal elements, and the largest difference in LSB."""

    equal: float
    largest_lsb: int


def difference(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """Raises `ModelError` for outputs of unequal shapes."""
    if a.shape != b.shape:
        raise ModelError(f"outputs of shapes {a.shape} and {b.shape} cannot be compared: not the same network")
    lsb = np.abs(a.astype(np.int64) - b)
    return Difference(float(np.mean(lsb == 0)), int(lsb.max()))


def converted(nodes: Sequence[Node], images: Tensor) -> bytes:
    """INT8 .tflite of `nodes` by TFLiteConverter, calibrated on `images` (N, C, H, W); weights are 8 bits wide.

    Raises `UsageError` where TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError:
        raise UsageError("the reference converter needs TensorFlow: pip install 'hilnas[tensorflow]'") from None
    maps = images.permute(0, 2, 3, 1).contiguous().numpy()

    @tf.function(input_signature=[tf.TensorSpec((1, *maps.shape[1:]), tf.float32)])  # type: ignore[untyped-decorator]
    def network(x: Any) -> Any:
        env = {INPUT: x}
        for node in nodes:
            env[node.name] = APPLIED[type(node)](tf, node, env)
        return env[nodes[-1].name]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in maps)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def _conv(tf: Any, node: Conv, env: Mapping[str, Any]) -> Any:
    x, weight = env[node.x], node.weight.numpy()
    how = {
        "strides": [1, node.stride, node.stride, 1],
        "padding": "SAME",
        "dilations": [1, node.dilation, node.dilation, 1],
    }
    if weight.shape[1] == 1 and x.shape[-1] == weight.shape[0]:
        # The raw operator: tf.nn.depthwise_conv2d makes a dilated one of SPACE_TO_BATCH_ND.
        y = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=weight.transpose(2, 3, 0, 1), **how)
    else:
        y = tf.nn.conv2d(x, weight.transpose(2, 3, 1, 0), **how)
    return _finished(tf, node, y)


def _fully_connected(tf: Any, node: FullyConnected, env: Mapping[str, Any]) -> Any:
    vector = tf.reshape(env[node.x], (1, -1))  # of a 1 x 1 map; the converter leaves it out
    return _finished(tf, node, tf.matmul(vector, node.weight.numpy().T))


def _finished(tf: Any, node: Conv | FullyConnected, y: Any) -> Any:
    return _activated(tf, y + node.bias.numpy(), node.activation)


def _activated(tf: Any, y: Any, activation: ActivationName) -> Any:
    return y if activation == "none" else getattr(tf.nn, activation)(y)


def _pad(tf: Any, node: Pad, env: Mapping[str, Any]) -> Any:
    return tf.pad(env[node.x], ((0, 0), node.rows, node.columns, (0, 0)))


def _resize(tf: Any, node: Resize, env: Mapping[str, Any]) -> Any:
    return tf.raw_ops.ResizeBilinear(images=env[node.x], size=node.size, half_pixel_centers=True)


APPLIED: Mapping[type[Any], Callable[[Any, Any, Mapping[str, Any]], Any]] = {
    Conv: _conv,
    Add: lambda tf, node, env: _activated(tf, env[node.a] + env[node.b], node.activation),
    FullyConnected: _fully_connected,
    AveragePool: lambda tf, node, env: tf.nn.avg_pool2d(env[node.x], node.kernel, node.stride, "VALID"),
    MaxPool: lambda tf, node, env: tf.nn.max_pool2d(env[node.x], node.kernel, node.stride, "SAME"),
    Pad: _pad,
    Reshape: lambda tf, node, env: tf.reshape(env[node.x], (1, *node.shape)),
    Softmax: lambda tf, node, env: tf.nn.softmax(env[node.x]),
    Mean: lambda tf, node, env: tf.reduce_mean(env[node.x], [1, 2], keepdims=True),
    Resize: _resize,
    Concat: lambda tf, node, env: tf.concat([env[x] for x in node.xs], 3),
    ArgMax: lambda tf, node, env: tf.argmax(env[node.x], 3, output_type=tf.int32),
}
BUILTINS: Mapping[str, type[Any]] = {
    "CONV_2D": Conv,
    "DEPTHWISE_CONV_2D": Conv,
    "FULLY_CONNECTED": FullyConnected,
    "AVERAGE_POOL_2D": AveragePool,
    "MAX_POOL_2D": MaxPool,
    "PAD": Pad,
    "RESHAPE": Reshape,
    "SOFTMAX": Softmax,
    "ADD": Add,
    "MEAN": Mean,
    "RESIZE_BILINEAR": Resize,
    "CONCATENATION": Concat,
    "ARG_MAX": ArgMax,
}


def parameters(model: ModelInfo, nodes: Sequence[Node]) -> dict[str, Parameters]:
    """The converter's scale and zero point for every tensor of `nodes`; a class map has (1, 0).

    Raises `ModelError` unless the file's operators are `nodes`, one for one, reading each other alike.
    """
    index = {INPUT: model.inputs[0]}
    if [BUILTINS.get(op.name) for op in model.operators] != [type(node) for node in nodes]:
        kinds = ", ".join(op.name for op in model.operators)
        raise ModelError(f"the converter's operators are not the network's {len(nodes)}, one for one: {kinds}")
    for node, op in zip(nodes, model.operators, strict=True):
        read = [index[name] for name in inputs_of(node)]
        if sorted(op.inputs[: len(read)]) != sorted(read):  # an addition's operands may be swapped
            raise ModelError(f"the converter's {op.name} for '{node.name}' reads other tensors than the network's")
        index[node.name] = op.outputs[0]
    found = {}
    for name, number in index.items():
        tensor = model.tensors[number]
        quantized = len(tensor.scale) > 0
        found[name] = (float(tensor.scale[0]), int(tensor.zero_point[0])) if quantized else (1.0, 0)
    return found


def _with_constants_of(model: ModelInfo, theirs: OperatorInfo, ours: Weighted) -> Weighted:
    weights = model.tensors[theirs.inputs[1]]
    weight = (
        np.frombuffer(weights.data, np.int8).reshape(ours.weight.shape).copy()
    )  # torch warns of arrays that it cannot write
    bias = np.frombuffer(model.tensors[theirs.inputs[2]].data, np.int32).copy()
    alive = weights.scale > SMALLEST_WEIGHT_SCALE
    if not np.allclose(weights.scale[alive], ours.weight_scale[alive], rtol=3e-7, atol=0):
        raise ModelError(f"'{ours.name}': the converter's weights have other scales than the network's")
    axis = 3 if isinstance(ours, QConv) and ours.depthwise else 0
    lsb = np.abs(np.compress(alive, weight, axis).astype(int) - np.compress(alive, ours.weight, axis))
    if np.count_nonzero(lsb) > 1 or (lsb > 1).any():
        raise ModelError(f"'{ours.name}': {np.count_nonzero(lsb)} of the converter's weights differ from the network's")
    wide = bias[alive].astype(np.int64)
    if (np.abs(wide - ours.bias[alive]) > 1 + 4e-7 * np.abs(wide)).any():
        raise ModelError(f"'{ours.name}': the converter's biases differ from the network's")
    return replace(ours, weight=weight, weight_scale=weights.scale, bias=bias)


def with_constants_of(model: ModelInfo, operators: Sequence[Operator]) -> list[Operator]:
    """`operators` with the converter's integer weights, scales and biases, after holding ours to them.

    The converter divides by scales in double precision that its file does not hold, so that a weight on a tie
    (seen: 2 of 482 000) or the last float32 place of a bias or a scale may fall the other way; and to a dead
    channel, whose weights are all below 5e-7, it gives a constant scale. Raises `ModelError` beyond that.
    """
    return [
        _with_constants_of(model, theirs, ours) if isinstance(ours, Weighted) else ours
        for theirs, ours in zip(model.operators, operators, strict=True)
    ]


def equivalent(model: ModelInfo, nodes: Sequence[Node]) -> IntegerGraph:
    """Our quantization of `nodes` (per channel) with the parameters and constants of the converter's file `model`."""
    injected = parameters(model, nodes)
    _, height, width, channels = model.tensors[model.inputs[0]].shape
    tensors = {INPUT: IntTensor(INPUT, (height, width, channels), *injected[INPUT])}
    operators = lower_nodes(nodes, tensors, injected)
    return IntegerGraph(tensors, tuple(with_constants_of(model, operators)), INPUT)
