"""Read a .tflite file that may come from anywhere: bounds are checked before anything is believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import ModelError, UsageError

BUILTIN_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
DTYPES = {"INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "FLOAT32": np.float32, "INT64": np.int64}


@dataclass(frozen=True, eq=False)
class TensorInfo:
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: bytes


@dataclass(frozen=True, eq=False)
class OperatorInfo:
    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """The first subgraph of a model."""

    tensors: tuple[TensorInfo, ...]
    operators: tuple[OperatorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size_bytes: int


def read(path: Path) -> ModelInfo:
    """The model in `path`.

    Raises `UsageError` if the file cannot be read, `ModelError` if it is not a whole .tflite.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give the path of a .tflite file") from None
    if content[4:8] != b"TFL3":
        raise ModelError(f"{path}: not a TFLite file (no TFL3 identifier); export the model again")
    try:
        return _read(content)
    except Exception as error:  # the generated reader raises whatever a wrong offset leads to
        raise ModelError(
            f"{path}: a TFLite file, but cut short or corrupt "
            f"({type(error).__name__}: {error}); export or copy it again"
        ) from None


def _read(content: bytes) -> ModelInfo:
    import ai_edge_litert.schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    if model.Version() != 3 or model.SubgraphsLength() < 1:
        raise ValueError(f"schema version {model.Version()}, {model.SubgraphsLength()} subgraphs")
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [
        (names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())], code.Version())
        for code in (model.OperatorCodes(i) for i in range(model.OperatorCodesLength()))
    ]
    graph = model.Subgraphs(0)
    tensors = tuple(_tensor(schema, model, graph.Tensors(i)) for i in range(graph.TensorsLength()))
    operators = []
    for i in range(graph.OperatorsLength()):
        op = graph.Operators(i)
        inputs, outputs = (_indices(v) for v in (op.InputsAsNumpy(), op.OutputsAsNumpy()))
        if any(not -1 <= index < len(tensors) for index in (*inputs, *outputs)):
            raise ValueError(f"operator {i} refers to a tensor that is not there")
        name, version = codes[op.OpcodeIndex()]
        operators.append(OperatorInfo(name, version, inputs, outputs))
    ends = (_indices(graph.InputsAsNumpy()), _indices(graph.OutputsAsNumpy()))
    if not all(ends) or any(not 0 <= index < len(tensors) for end in ends for index in end):
        raise ValueError("no inputs or outputs, or they refer to tensors that are not there")
    return ModelInfo(tensors, tuple(operators), *ends, len(content))


def _indices(vector: Any) -> tuple[int, ...]:
    return () if isinstance(vector, int) else tuple(int(i) for i in vector)


def _tensor(schema: Any, model: Any, tensor: Any) -> TensorInfo:
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    shape = _indices(tensor.ShapeAsNumpy())
    dtype = types[tensor.Type()]
    if not 0 <= tensor.Buffer() < model.BuffersLength():
        raise ValueError("a tensor refers to a buffer that is not there")
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    raw = b"" if isinstance(data, int) else data.tobytes()
    if raw and dtype in DTYPES and len(raw) != int(np.prod(shape, dtype=np.int64)) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"a tensor of {dtype} {list(shape)} has {len(raw)} bytes of data")
    q = tensor.Quantization()
    scale, zero, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    if q is not None and q.ScaleLength():
        scale, zero, axis = q.ScaleAsNumpy(), q.ZeroPointAsNumpy(), q.QuantizedDimension()
    return TensorInfo((tensor.Name() or b"").decode("utf8", "replace"), shape, dtype, scale, zero, axis, raw)


def dequantized(tensor: TensorInfo) -> NDArray[np.float32]:
    """A constant tensor's real values."""
    values: NDArray[Any] = np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape)
    if not len(tensor.scale):
        return values.astype(np.float32)
    along = [1] * values.ndim
    along[tensor.axis if len(tensor.scale) > 1 else 0] = len(tensor.scale)
    real: NDArray[np.float32] = (values.astype(np.float32) - tensor.zero_point.reshape(along)) * tensor.scale.reshape(
        along
    )
    return real.astype(np.float32)


def convolutions(model: ModelInfo) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weights as (O, I/groups, k, k) and biases (O,) of the convolutions, dequantized, in the file's order.

    Raises `ModelError` for a convolution without constant weights and bias.
    """
    found = []
    for i, op in enumerate(model.operators):
        if op.name in BUILTIN_CONVOLUTIONS:
            try:
                weight, bias = (dequantized(model.tensors[index]) for index in op.inputs[1:3])
                layout = (3, 0, 1, 2) if op.name == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
                found.append((np.ascontiguousarray(weight.transpose(layout)), bias))
            except (ValueError, KeyError, IndexError) as error:
                raise ModelError(f"operator {i} ({op.name}) has no usable constant weights and bias: {error}") from None
    return found
