"""The smallest models worth running, written straight into the TFLite schema."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

SHAPE = (1, 8, 8, 16)


def int8_add(path: Path, *, constant: int = 3) -> Path:
    """y = x + constant, int8 with scale 1 and zero point 0: y saturates at 127. Shape (1, 8, 8, 16)."""
    added = np.full(SHAPE, constant, dtype=np.int8)
    tensors = [_tensor("x", 0), _tensor("c", 1), _tensor("y", 0)]
    options = schema.AddOptionsT()
    options.potScaleInt16 = True
    return _write(path, tensors, schema.BuiltinOperator.ADD, (schema.BuiltinOptions.AddOptions, options), added)


def int8_open(path: Path, *, signature: tuple[int, ...] = (1, -1, -1, 16), name: str = "x") -> Path:
    """y = x + 3, int8 as above; 1 in place of each size that the signature leaves open, as a converter writes it."""
    x, y = _tensor(name, 0), _tensor("y", 0)
    for tensor in (x, y):
        tensor.shape = [max(size, 1) for size in signature]
        tensor.shapeSignature = list(signature)
    c = _tensor("c", 1)
    c.shape = [1]
    options = (schema.BuiltinOptions.AddOptions, schema.AddOptionsT())
    options[1].potScaleInt16 = True
    return _write(path, [x, c, y], schema.BuiltinOperator.ADD, options, np.full(1, 3, np.int8))


def float_log(path: Path) -> Path:
    """y = log(x), float32, shape (1, 8, 8, 16): NaN for a negative x."""
    tensors = [_tensor("x", 0, schema.TensorType.FLOAT32), _tensor("y", 0, schema.TensorType.FLOAT32)]
    return _write(path, tensors, schema.BuiltinOperator.LOG, None, None)


def _tensor(name: str, buffer: int, kind: int = schema.TensorType.INT8) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(SHAPE), kind, buffer
    if kind == schema.TensorType.INT8:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [1.0], [0]
    return tensor


def _write(path, tensors, builtin, options, constant) -> Path:
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = (
        builtin,
        builtin,
        2 if constant is not None else 1,
    )
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = list(range(len(tensors) - 1)), [len(tensors) - 1]
    if options:
        operator.builtinOptionsType, operator.builtinOptions = options
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, [operator]
    graph.inputs, graph.outputs, graph.name = [0], [len(tensors) - 1], b"main"
    buffers = [schema.BufferT()]
    if constant is not None:
        buffers.append(schema.BufferT())
        buffers[1].data = constant.reshape(-1).view(np.uint8)
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], buffers
    model.description = b"tiny"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())
    return path
