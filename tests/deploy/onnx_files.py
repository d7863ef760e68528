"""Float networks as ONNX files, and images for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image


def tensor(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def weights(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32) / np.sqrt(max(np.prod(shape[1:]), 1))


NODES = (
    helper.make_node("Conv", ["x", "w"], ["c"], "conv", strides=[2, 2], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c"], ["r"], "relu"),
    helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
    helper.make_node("Flatten", ["g"], ["f"], "flatten"),
    helper.make_node("Gemm", ["f", "v"], ["y"], "classifier", transB=1),
)
DEEPER = (
    *NODES[:2],
    helper.make_node("Conv", ["r", "w2"], ["c2"], "conv2", strides=[2, 2], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
    helper.make_node("Conv", ["r2", "w3"], ["c3"], "conv3", pads=[1, 1, 1, 1]),
    helper.make_node("GlobalAveragePool", ["c3"], ["g"], "pool"),
    *NODES[3:],
)
CONSTANTS = {"w": weights(8, 3, 3, 3), "v": weights(5, 8)}
OF_DEEPER = {"w2": weights(8, 8, 3, 3), "w3": weights(8, 8, 3, 3)}


def network(
    path: Path,
    nodes: Sequence[onnx.NodeProto] = NODES,
    outputs: Sequence[str] = ("y",),
    shape: Sequence[int | str] = (1, 3, 12, 16),
    kind: int = TensorProto.FLOAT,
    **constants: object,
) -> Path:
    """A file of `nodes`: a classifier of five classes, or others with constants of theirs."""
    source = helper.make_tensor_value_info("x", kind, shape)
    held = [tensor(name, values) for name, values in {**CONSTANTS, **constants}.items()]
    graph = helper.make_graph(nodes, "g", [source], [onnx.ValueInfoProto(name=name) for name in outputs], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_images(folder: Path, count: int) -> Path:
    """JPEG files of noise, 30 x 20."""
    folder.mkdir()
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.jpg")
    return folder
