"""Models for the tests of reading and placement, small enough to count by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np

from deploy.formats.tflite.read import ModelInfo, OperatorInfo, OperatorOptions, TensorInfo
from deploy.formats.tflite.writer import write
from nas.quant.integer_graph import IntegerGraph, IntTensor, QAdd, QArgMax, QConv, QResize

CHANNEL, TENSOR = "per channel", "per tensor"
METADATA = {"subnet": "b1_k3e2_w8", "seed": 3}


def convolution(name: str, x: str, weight: tuple[int, ...], granularity: str, **options: Any) -> QConv:
    depthwise = weight[0] == 1
    channels = weight[3] if depthwise else weight[0]
    scales = np.full(channels if granularity == CHANNEL else 1, 0.02, np.float32)
    values = np.arange(np.prod(weight), dtype=np.int64).reshape(weight) % 11 - 5
    chosen: dict[str, Any] = {"stride": 1, "dilation": 1, "activation": "none", **options}
    bias = np.arange(channels, dtype=np.int32)
    return QConv(name, x, values.astype(np.int8), scales, bias, depthwise=depthwise, bits=8, **chosen)


def graph(granularity: str, dilation: int = 2, size: tuple[int, int] = (10, 10), kernel: int = 5) -> IntegerGraph:
    """9x10x4 -> conv 3x3 stride 2 -> 5x5x6 -> depthwise, + -> conv 1x1 -> 5x5x3 -> resize to `size` -> classes."""
    shapes = {"in": (9, 10, 4), "a": (5, 5, 6), "b": (5, 5, 6), "c": (5, 5, 6), "d": (5, 5, 3), "e": (*size, 3)}
    tensors = {name: IntTensor(name, shape, 0.5, 3) for name, shape in shapes.items()}
    tensors["f"] = IntTensor("f", (*size, 1), 1.0, 0, "int32", rank=3)
    operators = (
        convolution("a", "in", (6, 3, 3, 4), granularity, stride=2),
        convolution("b", "a", (1, kernel, kernel, 6), granularity, dilation=dilation, activation="relu6"),
        QAdd("c", "a", "b"),
        convolution("d", "c", (3, 1, 1, 6), granularity),
        QResize("e", "d"),
        QArgMax("f", "e"),
    )
    return IntegerGraph(tensors, operators, "in")


def written(granularity: str = TENSOR, **options: Any) -> bytes:
    return write(graph(granularity, **options), METADATA)


def edited(content: bytes, change: Callable[[Any], object]) -> bytes:
    """The model after `change` edited its object form (`schema.ModelT`)."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    change(model)
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def one_operator(
    name: str,
    inputs: list[tuple[tuple[int, ...], bytes]],
    output: tuple[int, ...],
    options: OperatorOptions | None = None,
) -> ModelInfo:
    """A float model of one operator, from records: its inputs are (shape, constant bytes or none)."""
    none = (np.zeros(0, np.float32), np.zeros(0, np.int64), 0)
    tensors = [TensorInfo(f"t{i}", s, "FLOAT32", *none, memoryview(d)) for i, (s, d) in enumerate(inputs)]
    tensors.append(TensorInfo("out", output, "FLOAT32", *none, memoryview(b"")))
    last = len(inputs)
    op = OperatorInfo(name, 1, tuple(range(last)), (last,), options or OperatorOptions())
    return ModelInfo(tuple(tensors), (op,), (0,), (last,), 100, 1, (), {})
