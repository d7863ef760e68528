"""Models of other tools, written straight into the TFLite schema: an image to scores or classes of brightness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

Types = schema.TensorType


@dataclass(frozen=True)
class Foreign:
    """An RGB image (1, H, W, 3) to K scores at each pixel, or to the class.

    Attributes:
        dtype: of the input: FLOAT32, UINT8 or INT8 (dequantized at once).
        output: "scores" (float32), "classes" (int32), "classes64" (int64), or "column" (int32, (1, H, W, 1)).
        scale, zero_point: of a quantized input.
        normalization: (mean, std) in TFLite metadata; None: no metadata.
        open_size: height and width are left open, and 1 in the file.
    """

    size: tuple[int, int] = (32, 40)
    classes: int = 4
    dtype: str = "FLOAT32"
    output: str = "scores"
    scale: float = 1 / 255
    zero_point: int = 0
    normalization: tuple[Sequence[float], Sequence[float]] | None = None
    open_size: bool = False

    @property
    def weights(self) -> NDArray[np.float32]:
        """(K, 3): class k wins where the first channel is near k / (K - 1)."""
        at = np.arange(self.classes) / max(self.classes - 1, 1)
        return np.stack([2 * at, 0 * at, 0 * at], axis=1).astype(np.float32)

    @property
    def bias(self) -> NDArray[np.float32]:
        at = np.arange(self.classes) / max(self.classes - 1, 1)
        return (-at * at).astype(np.float32)

    def classes_of(self, real: NDArray[np.float32]) -> NDArray[np.int64]:
        """What it predicts for real values (H, W, 3)."""
        return (real @ self.weights.T + self.bias).argmax(-1)

    def write(self, path: Path) -> Path:
        height, width = self.size
        tensors, operators, buffers = [], [], [schema.BufferT()]

        def tensor(name: str, shape: Sequence[int], kind: int, data: NDArray[np.generic] | None = None) -> int:
            made = schema.TensorT()
            made.name, made.shape, made.type, made.buffer = name.encode(), list(shape), kind, 0
            if data is not None:
                made.buffer = len(buffers)
                buffers.append(schema.BufferT())
                buffers[-1].data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            tensors.append(made)
            return len(tensors) - 1

        def operator(code: int, inputs: Sequence[int], output: int, options: tuple[int, object] | None) -> None:
            made = schema.OperatorT()
            made.opcodeIndex, made.inputs, made.outputs = len(operators), list(inputs), [output]
            if options:
                made.builtinOptionsType, made.builtinOptions = options
            operators.append((code, made))

        source = image = tensor("image", (1, height, width, 3), getattr(Types, self.dtype))
        if self.dtype != "FLOAT32":
            tensors[source].quantization = schema.QuantizationParametersT()
            tensors[source].quantization.scale = [self.scale]
            tensors[source].quantization.zeroPoint = [self.zero_point]
            image = tensor("real", (1, height, width, 3), Types.FLOAT32)
            operator(schema.BuiltinOperator.DEQUANTIZE, [source], image, None)
        weights = tensor("weights", (self.classes, 1, 1, 3), Types.FLOAT32, self.weights)
        bias = tensor("bias", (self.classes,), Types.FLOAT32, self.bias)
        end = tensor("scores", (1, height, width, self.classes), Types.FLOAT32)
        convolution = schema.Conv2DOptionsT()
        convolution.strideH = convolution.strideW = convolution.dilationHFactor = convolution.dilationWFactor = 1
        operator(
            schema.BuiltinOperator.CONV_2D,
            [image, weights, bias],
            end,
            (schema.BuiltinOptions.Conv2DOptions, convolution),
        )
        if self.output != "scores":
            kind = Types.INT64 if self.output == "classes64" else Types.INT32
            axis, scores = tensor("axis", (1,), Types.INT32, np.array([3], np.int32)), end
            end = tensor("classes", (1, height, width), kind)
            options = schema.ArgMaxOptionsT()
            options.outputType = kind
            operator(
                schema.BuiltinOperator.ARG_MAX, [scores, axis], end, (schema.BuiltinOptions.ArgMaxOptions, options)
            )
        if self.output == "column":
            shape, flat = tensor("shape", (4,), Types.INT32, np.array([1, height, width, 1], np.int32)), end
            end = tensor("column", (1, height, width, 1), Types.INT32)
            operator(schema.BuiltinOperator.RESHAPE, [flat, shape], end, None)
        for one in tensors if self.open_size else ():
            if tuple(one.shape[1:3]) == self.size:
                one.shapeSignature = [1, -1, -1, *one.shape[3:]]
                one.shape = [1, 1, 1, *one.shape[3:]]
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = tensors, [made for _, made in operators]
        graph.inputs, graph.outputs, graph.name = [source], [end], b"main"
        codes = []
        for code, _ in operators:
            one = schema.OperatorCodeT()
            one.builtinCode = one.deprecatedBuiltinCode = code
            one.version = 2 if code in (schema.BuiltinOperator.DEQUANTIZE, schema.BuiltinOperator.ARG_MAX) else 1
            codes.append(one)
        model = schema.ModelT()
        model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], codes, buffers
        if self.normalization:
            entry = schema.MetadataT()
            entry.name, entry.buffer = b"TFLITE_METADATA", len(buffers)
            buffers.append(schema.BufferT())
            buffers[-1].data = np.frombuffer(tflite_metadata(*self.normalization), np.uint8)
            model.metadata = [entry]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(builder.Output())
        return path


def tflite_metadata(mean: Sequence[float], std: Sequence[float]) -> bytes:
    """ModelMetadata with NormalizationOptions of the first input, as tflite-support writes it."""
    b = flatbuffers.Builder(256)

    def floats(values: Sequence[float]) -> int:
        b.StartVector(4, len(values), 4)
        for value in reversed(values):
            b.PrependFloat32(value)
        return b.EndVector()

    def table(fields: int, **at: int) -> int:
        b.StartObject(fields)
        for name, offset in at.items():
            b.PrependUOffsetTRelativeSlot(int(name[1:]), offset, 0)
        return b.EndObject()

    def listed(offset: int) -> int:
        b.StartVector(4, 1, 4)
        b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    means, stds, name = floats(mean), floats(std), b.CreateString("a model")
    options = table(2, _0=means, _1=stds)
    b.StartObject(2)
    b.PrependUint8Slot(0, 1, 0)
    b.PrependUOffsetTRelativeSlot(1, options, 0)
    unit = b.EndObject()
    units = listed(unit)
    tensor = table(7, _4=units)
    inputs = listed(tensor)
    subgraph = table(9, _2=inputs)
    subgraphs = listed(subgraph)
    root = table(8, _0=name, _3=subgraphs)
    b.Finish(root, file_identifier=b"M001")
    return bytes(b.Output())
