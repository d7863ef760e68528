"""A model whose work is as long as wanted: a chain of equal convolutions, so that 21 of them are 5 % more than 20."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

HEIGHT, WIDTH, CHANNELS = 16, 16, 32
SHAPE = (1, HEIGHT, WIDTH, CHANNELS)


def conv_chain(path: Path, length: int, *, description: str = "") -> Path:
    """`length` 1x1 convolutions, int8, (1, 16, 16, 32) each. Another description is another file with the same work."""
    weights = np.random.default_rng(0).integers(-127, 128, (CHANNELS, 1, 1, CHANNELS), dtype=np.int8)
    bias = np.zeros(CHANNELS, dtype=np.int32)
    tensors = [
        _tensor("weights", weights.shape, schema.TensorType.INT8, 1, 0.01),
        _tensor("bias", bias.shape, schema.TensorType.INT32, 2, 0.01),
        *(_tensor(f"x{i}", SHAPE, schema.TensorType.INT8, 0, 1.0) for i in range(length + 1)),
    ]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 3
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.operators = b"main", tensors, [_convolution(i) for i in range(length)]
    graph.inputs, graph.outputs = [2], [length + 2]
    buffers = [schema.BufferT(), schema.BufferT(), schema.BufferT()]
    for buffer, values in zip(buffers[1:], (weights, bias), strict=True):
        buffer.data = values.reshape(-1).view(np.uint8)
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], buffers
    model.description = description.encode()
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())
    return path


def _tensor(name: str, shape: tuple[int, ...], kind: int, buffer: int, scale: float) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), kind, buffer
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    return tensor


def _convolution(index: int) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [index + 2, 0, 1], [index + 3]
    operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    operator.builtinOptions = options
    return operator
