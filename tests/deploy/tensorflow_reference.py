"""The reference path: a folded subnet through TensorFlow's converter, and its quantization parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from deploy.tflite.read import ModelInfo
from nas.quant.float_graph import INPUT, Add, Conv, Node
from nas.quant.integer_graph import Operator, QConv
from nas.quant.lower import Parameters


def converted(nodes: Sequence[Node], images: Tensor) -> bytes:
    """INT8 .tflite of `nodes` by TFLiteConverter, calibrated on `images` (N, C, H, W)."""
    import tensorflow as tf

    maps = images.permute(0, 2, 3, 1).contiguous().numpy()

    @tf.function(input_signature=[tf.TensorSpec((1, *maps.shape[1:]), tf.float32)])
    def network(x: Any) -> Any:
        env = {INPUT: x}
        for node in nodes:
            env[node.name] = _apply(tf, node, env)
        return env[nodes[-1].name]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in maps)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _apply(tf: Any, node: Node, env: dict[str, Any]) -> Any:
    if isinstance(node, Add):
        return env[node.a] + env[node.b]
    assert isinstance(node, Conv)
    x, weight = env[node.x], node.weight.numpy()
    dilations = [1, node.dilation, node.dilation, 1]
    strides = [1, node.stride, node.stride, 1]
    if weight.shape[1] == 1 and x.shape[-1] == weight.shape[0]:
        y = tf.raw_ops.DepthwiseConv2dNative(
            input=x, filter=weight.transpose(2, 3, 0, 1), strides=strides, padding="SAME", dilations=dilations
        )
    else:
        y = tf.nn.conv2d(x, weight.transpose(2, 3, 1, 0), strides, "SAME", dilations=dilations)
    y = y + node.bias.numpy()
    return tf.nn.relu6(y) if node.activation == "relu6" else y


KINDS = {"CONV_2D": Conv, "DEPTHWISE_CONV_2D": Conv, "ADD": Add}


def parameters(model: ModelInfo, nodes: Sequence[Node]) -> dict[str, Parameters]:
    """The converter's scale and zero point for every tensor of `nodes`."""

    def of(index: int) -> Parameters:
        tensor = model.tensors[index]
        return float(np.float32(tensor.scale[0])), int(tensor.zero_point[0])

    assert [KINDS[op.name] for op in model.operators] == [type(node) for node in nodes]
    found = {node.name: of(op.outputs[0]) for node, op in zip(nodes, model.operators, strict=True)}
    return {INPUT: of(model.inputs[0]), **found}


def with_constants_of(model: ModelInfo, operators: Sequence[Operator]) -> list[Operator]:
    """`operators` with the converter's integer weights and biases, after holding ours to them.

    The converter divides by scales in double precision that its file does not hold, so that a weight on a tie
    (seen: 2 of 482 000) or the last float32 place of a bias may fall the other way.
    """
    replaced: list[Operator] = []
    for theirs, ours in zip(model.operators, operators, strict=True):
        if isinstance(ours, QConv):
            weight = np.frombuffer(model.tensors[theirs.inputs[1]].data, np.int8).reshape(ours.weight.shape)
            difference = np.abs(weight.astype(int) - ours.weight)
            assert difference.max() <= 1
            assert np.count_nonzero(difference) <= 1
            bias = np.frombuffer(model.tensors[theirs.inputs[2]].data, np.int32)
            assert (np.abs(bias.astype(np.int64) - ours.bias) <= 1 + 4e-7 * np.abs(bias.astype(np.int64))).all()
            replaced.append(dataclasses.replace(ours, weight=weight, bias=bias))
        else:
            replaced.append(ours)
    return replaced
