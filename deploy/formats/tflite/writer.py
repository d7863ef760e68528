"""Write an `IntegerGraph` as a .tflite file, in milliseconds and without a converter.

The bytes are a pure function of the graph and the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from numpy.typing import NDArray

from deploy.formats.tflite.builder import Builder
from deploy.formats.tflite.emitted import INT4, INT8, INT32, UINT8, Constant
from deploy.formats.tflite.explicit_padding import with_paddings
from deploy.formats.tflite.metadata import MIN_RUNTIME, Description, min_runtime, with_labels
from deploy.formats.tflite.metadata import metadata as described_metadata
from deploy.formats.tflite.normalization import NAME
from deploy.formats.tflite.operators import Form, emit
from nas.errors import QuantizationError
from nas.quant.integer_graph import IntegerGraph, IntTensor, QFloatLayer
from nas.quant.integer_operators import QConstant

IDENTIFIER = b"TFL3"
METADATA_NAME = "hilnas"
CONVERSIONS = {"QUANTIZE": (schema.BuiltinOperator.QUANTIZE, 1), "DEQUANTIZE": (schema.BuiltinOperator.DEQUANTIZE, 2)}
ALIGNMENT = 16  # the schema's force_align, which the generated Python ignores


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes start at a multiple of 16, so that the runtime can use them in place."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.raw = data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (flatbuffers' name)
        vector = None
        if self.raw:
            vector = builder.vector(self.raw, len(self.raw), ALIGNMENT)
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class _Writer:
    """The model under construction: a subgraph, its buffers and its operator codes."""

    def __init__(self, graph: IntegerGraph, form: Form) -> None:
        self.graph, self.form = graph, form
        self.shift = 128 if form.activations == "uint8" else 0
        self.buffers = [_AlignedBuffer(b"")]  # buffer 0 stays empty: feature maps point to it
        self.tensors: list[Any] = []
        self.codes: list[Any] = []
        self.index: dict[str, int] = {}
        ends = (graph.input, *graph.outputs)
        self.file_names = dict(zip(ends, graph.file_names or ends, strict=True))
        self.code_index: dict[tuple[int, int], int] = {}

    def feature_map(self, tensor: IntTensor) -> int:
        name = self.file_names.get(tensor.name, tensor.name)
        if tensor.dtype == "int32":
            self.index[tensor.name] = self._tensor(name, tensor.file_shape, INT32, 0)
        else:
            self.index[tensor.name] = self._tensor(name, tensor.file_shape, UINT8 if self.shift else INT8, 0)
            scale = np.array([tensor.scale], np.float32)
            self.tensors[-1].quantization = _quantization(scale, tensor.zero_point + self.shift, 0)
        return self.index[tensor.name]

    def constant(self, constant: Constant) -> int:
        data, kind = constant.data, INT32
        if constant.data.dtype == np.int8:
            data, kind = self._weights(constant)
        elif constant.data.dtype == np.float32:
            kind = schema.TensorType.FLOAT32
        self.buffers.append(_AlignedBuffer(data.tobytes()))
        index = self._tensor(constant.name, constant.data.shape, kind, len(self.buffers) - 1)
        if constant.scale is not None:
            zero_point = constant.zero_point + (128 if kind == UINT8 else 0)
            self.tensors[-1].quantization = _quantization(constant.scale, zero_point, constant.axis)
        return index

    def _weights(self, constant: Constant) -> tuple[NDArray[Any], int]:
        """Weights as they are stored, and their type."""
        if self.form.activations == "uint8":
            if constant.scale is not None and len(constant.scale) > 1:
                raise QuantizationError(
                    f"'{constant.name}': uint8 weights have one scale; quantize with granularity = \"tensor\""
                )
            return (constant.data.astype(np.int16) + 128).astype(np.uint8), UINT8
        if self.form.few_bits == "int4" and constant.bits == 4:
            if constant.asymmetric:
                raise QuantizationError(
                    f"'{constant.name}': asymmetric 4-bit weights do not fit INT4 (-8 to 7); quantize with "
                    'few_bits = "symmetric", or leave them in int8, where `hilnas pack` packs them'
                )
            nibbles = np.append(constant.data.reshape(-1), np.zeros(constant.data.size % 2, np.int8)).astype(np.uint8)
            return (nibbles[::2] & 15) | (nibbles[1::2] << 4), INT4
        return constant.data, INT8

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, kind, buffer
        tensor.shape = np.array(shape, np.int32)
        tensor.hasRank = True
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def opcode(self, code: int, version: int) -> int:
        if (code, version) not in self.code_index:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.version = code, version
            entry.deprecatedBuiltinCode = min(code, 127)
            self.code_index[code, version] = len(self.codes)
            self.codes.append(entry)
        return self.code_index[code, version]

    def operators(self) -> list[Any]:
        written = []
        for op in self.graph.operators:
            if isinstance(op, QConstant):
                tensor = self.graph.tensors[op.name]
                scale, values = np.array([tensor.scale], np.float32), op.values.reshape(tensor.file_shape)
                self.index[op.name] = self.constant(Constant(op.name, values, scale, zero_point=tensor.zero_point))
                continue
            read, emitted = emit(op, self.graph, self.form)
            operator = schema.OperatorT()
            operator.opcodeIndex = self.opcode(emitted.code, emitted.version)
            before, after = ([self.constant(c) for c in part] for part in (emitted.before, emitted.constants))
            sources, sink = [self.index[name] for name in read], self.feature_map(self.graph.tensors[op.name])
            to_float, from_float = list[Any](), list[Any]()
            if isinstance(op, QFloatLayer):
                (source,) = sources
                source, to_float = self.converted(source, "DEQUANTIZE")
                sources, (sink, from_float) = [source], self.converted(sink, "QUANTIZE")
            operator.inputs = np.array([*before, *sources, *after], np.int32)
            operator.outputs = np.array([sink], np.int32)
            operator.builtinOptionsType, operator.builtinOptions = emitted.options_type, emitted.options
            written += [*to_float, operator, *from_float]
        return written

    def converted(self, inner: int, name: str) -> tuple[int, list[Any]]:
        """A float32 tensor in place of the quantized tensor `inner`, and the operator between the two."""
        tensor = self.tensors[inner]
        if tensor.type == INT32:
            return inner, []  # a class map is no quantized tensor
        code, version = CONVERSIONS[name]
        outer = self._tensor(f"{tensor.name}/float", tuple(tensor.shape), schema.TensorType.FLOAT32, 0)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.opcode(code, version)
        read_written = (outer, inner) if name == "QUANTIZE" else (inner, outer)
        operator.inputs, operator.outputs = (np.array([index], np.int32) for index in read_written)
        return outer, [operator]


def _quantization(scale: NDArray[np.float32], zero_point: int, axis: int) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.asarray(scale, np.float32)
    quantization.zeroPoint = np.full(len(scale), zero_point, np.int64)
    quantization.quantizedDimension = axis
    return quantization


def _signature(graph: IntegerGraph, source: int, sinks: Sequence[int]) -> Any:
    """The input and the outputs by the names they are given, else by the last part of their own where it is theirs."""
    source_name, *names = graph.file_names or (graph.input, *graph.outputs)
    parts = [name.rsplit("/", maxsplit=1)[-1] for name in names]
    names = names if graph.file_names or len(set(parts)) < len(parts) else parts

    def tensor_map(name: str, index: int) -> Any:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        return entry

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [tensor_map(source_name, source)]
    signature.outputs = [tensor_map(name, sink) for name, sink in zip(names, sinks, strict=True)]
    return signature


def write(
    graph: IntegerGraph,
    metadata: Mapping[str, Any] | None = None,
    form: Form = Form(),  # noqa: B008
    described: Description | None = None,
) -> bytes:
    """The .tflite file of `graph`: NHWC, batch 1; `metadata` goes in as JSON under 'hilnas'.

    `described`: what goes in as TFLite Metadata, with the oldest runtime that has the operators, and the labels behind.

    Raises `QuantizationError` where the form cannot hold the graph's scales or weights.
    """
    graph = with_paddings(graph)
    writer = _Writer(graph, form)
    source = writer.feature_map(graph.tensors[graph.input])
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    subgraph.operators = writer.operators()
    sinks = [writer.index[name] for name in graph.outputs]
    if form.ends == "float":
        source, before = writer.converted(source, "QUANTIZE")
        converted = [writer.converted(sink, "DEQUANTIZE") for sink in sinks]
        sinks = [sink for sink, _ in converted]
        subgraph.operators = [*before, *subgraph.operators, *(op for _, after in converted for op in after)]
    subgraph.tensors = writer.tensors
    subgraph.inputs, subgraph.outputs = np.array([source], np.int32), np.array(sinks, np.int32)
    entries = {METADATA_NAME: json.dumps(dict(metadata or {}), sort_keys=True).encode()}
    if described is not None:
        entries |= _described(described, writer.tensors, source, sinks, list(writer.code_index))
    model = schema.ModelT()
    model.version = 3
    model.description = "hilnas"
    model.subgraphs, model.operatorCodes = [subgraph], writer.codes
    model.signatureDefs = [_signature(graph, source, sinks)]
    content = _packed(model, writer.buffers, entries)
    return content if described is None else with_labels(content, described.classes)


def described_again(content: bytes, metadata: Mapping[str, Any], described: Description) -> bytes:
    """A file that `write` made, with other metadata, and nothing else changed."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (subgraph,), first = model.subgraphs, min(entry.buffer for entry in model.metadata)
    codes = [(code.builtinCode, code.version) for code in model.operatorCodes]
    entries = {METADATA_NAME: json.dumps(dict(metadata), sort_keys=True).encode()}
    entries |= _described(described, subgraph.tensors, subgraph.inputs[0], subgraph.outputs, codes)
    buffers = [_AlignedBuffer(b"" if b.data is None else bytes(b.data)) for b in model.buffers[:first]]
    return with_labels(_packed(model, buffers, entries), described.classes)


def _described(
    described: Description, tensors: Sequence[Any], source: int, sinks: Sequence[int], codes: Sequence[tuple[int, int]]
) -> dict[str, bytes]:
    """The entries of the ecosystem's metadata."""
    ends = [tensors[index].name for index in (source, *sinks)]
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in ends]
    scores = tensors[sinks[0]].type != INT32
    return {
        NAME: described_metadata(described, scores=scores, names=names),
        MIN_RUNTIME: min_runtime(codes),
    }


def _packed(model: Any, buffers: Sequence[_AlignedBuffer], entries: Mapping[str, bytes]) -> bytes:
    """`model` with these buffers, and behind them the metadata's."""
    model.metadata, model.buffers = [], list(buffers)
    for name, content in entries.items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(_AlignedBuffer(content))
        model.metadata.append(entry)

    builder = Builder(sum(len(b.raw) for b in model.buffers) + 65536)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])  # Output() would copy once more
