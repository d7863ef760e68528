"""Read a .tflite file that may come from anywhere: bounds are checked before anything is believed."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.formats.wrong_file import damage, wrong_file
from deploy.formats.wrong_path import missing, wrong_directory
from deploy.formats.wrong_text import MARK
from hil.errors import ModelError, UsageError

BUILTIN_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
DTYPES = {"INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "FLOAT32": np.float32, "INT64": np.int64}
BITS = {
    **dict.fromkeys(("INT2",), 2),
    **dict.fromkeys(("INT4", "UINT4"), 4),
    **dict.fromkeys(("INT8", "UINT8", "BOOL", "FLOAT8_E4M3FN", "FLOAT8_E5M2"), 8),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("INT32", "UINT32", "FLOAT32"), 32),
    **dict.fromkeys(("INT64", "UINT64", "FLOAT64", "COMPLEX64"), 64),
}  # of one stored element; those of fewer than eight are packed
TABLE_BYTES = 32  # no tensor, operator or other table of a true file takes fewer, with what it refers to
MAX_RANK = 16
EXPECTED_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
}
OTHERS = (
    *("Alpha", "Axis", "BeginMask", "Beta", "BlockSize", "EllipsisMask", "EndMask", "KeepNumDims", "NewAxisMask"),
    *("NumSplits", "Padding", "ShrinkAxisMask", "WeightsFormat"),
)


@dataclass(frozen=True, eq=False)
class TensorInfo:
    """A tensor. `data` (empty unless constant) is a view of the file: tensors that share a buffer cost nothing.

    `signature` is its shape with -1 for each size that the file leaves open; empty where it leaves none open.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: memoryview
    blockwise: bool = False
    signature: tuple[int, ...] = ()


@dataclass(frozen=True)
class OperatorOptions:
    """An operator's options.

    Attributes:
        activation: fused: NONE, RELU, RELU6, ...
        stride, dilation, window: (height, width), None where the kind has none; the window is a pooling's.
        half_pixel_centers, align_corners: of a RESIZE.
        adjoint: BATCH_MATMUL reads its first operand transposed.
        others: what only an importer asks for, by the schema's name (`OTHERS`).
    """

    activation: str = "NONE"
    stride: tuple[int, int] | None = None
    dilation: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    half_pixel_centers: bool = False
    align_corners: bool = False
    adjoint: bool = False
    others: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OperatorInfo:
    """An operator; an index of -1 is an input left out. `custom` is the code of a CUSTOM one.

    One that is newer than this kit's schema is named by its number, as UNKNOWN_250; so are a tensor's type and such.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: OperatorOptions = OperatorOptions()
    custom: str = ""


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """The first subgraph of a model, and the rest of the file.

    `signatures` are all of the file's, `other_signatures` those of its other subgraphs: an interpreter runs the first.
    """

    tensors: tuple[TensorInfo, ...]
    operators: tuple[OperatorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size_bytes: int
    subgraphs: int
    signatures: tuple[str, ...]
    metadata: Mapping[str, memoryview]
    other_signatures: tuple[str, ...] = ()


def read(path: Path) -> ModelInfo:
    """The model in `path`. Raises `UsageError` if the file cannot be read, and as `parse` does."""
    if path.is_dir():
        raise UsageError(f"{path}: {wrong_directory(path)}")
    try:
        with path.open("rb") as file:
            if file.seekable() and file.peek(8)[4:8] != MARK:  # what is no model may be larger than the memory
                raise ModelError(f"{path}: {wrong_file(file)}")
            content = file.read()
    except FileNotFoundError as error:
        raise UsageError(f"{path}: {error.strerror}; {missing(path)}") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give the path of a .tflite file") from None
    return parse(content, str(path))


def parse(content: bytes, where: str) -> ModelInfo:
    """The model whose file has these bytes.

    Raises `ModelError` naming `where` and saying what they are, if they are not a whole .tflite.
    """
    if content[4:8] != MARK:
        raise ModelError(f"{where}: {wrong_file(io.BytesIO(content))}")
    try:
        return _Reader(content).model()
    except Exception as error:  # the generated reader raises whatever a wrong offset leads to
        raise ModelError(
            f"{where}: a TFLite file, but cut short or corrupt ({type(error).__name__}: {error}); {damage(content)}"
        ) from None


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    import ai_edge_litert.schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, enumeration)).items() if isinstance(value, int)}


def _name(enumeration: str, value: int) -> str:
    return _names(enumeration).get(value, f"UNKNOWN_{value}")


class _Reader:
    """Reads one file, and never more out of it than its bytes can hold.

    A flatbuffer may point to the same bytes any number of times, so that a small file could unfold into
    gigabytes: every table and every vector that becomes Python objects is paid from a budget of the file's size.
    """

    def __init__(self, content: bytes) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self.schema: Any = schema
        self.content = content
        self.budget = len(content)
        self.root = schema.Model.GetRootAs(content, 0)

    def spend(self, size_bytes: int) -> None:
        self.budget -= size_bytes
        if self.budget < 0:
            raise ValueError("its vectors hold more than the file has bytes")

    def each(self, table: Any, name: str) -> list[Any]:
        """The tables in the vector `name` of `table`."""
        length = getattr(table, f"{name}Length")()
        self.spend(length * TABLE_BYTES)
        return [getattr(table, name)(i) for i in range(length)]

    def integers(self, vector: Any) -> tuple[int, ...]:
        if isinstance(vector, int):  # the generated reader's word for absent
            return ()
        self.spend(vector.nbytes)
        return tuple(vector.tolist())

    def text(self, raw: bytes | None) -> str:
        """A name as it may be shown: a terminal obeys what is not printable."""
        self.spend(len(raw or b""))
        return "".join(c if c.isprintable() else "?" for c in (raw or b"").decode("utf8", "replace"))

    def model(self) -> ModelInfo:
        root = self.root
        if root.Version() != 3 or root.SubgraphsLength() < 1:
            raise ValueError(f"schema version {root.Version()}, {root.SubgraphsLength()} subgraphs")
        if root.BuffersLength() * 4 > len(self.content):
            raise ValueError(f"{root.BuffersLength()} buffers")
        codes = [
            (
                _name("BuiltinOperator", max(code.BuiltinCode(), code.DeprecatedBuiltinCode())),
                code.Version(),
                self.text(code.CustomCode()),
            )
            for code in self.each(root, "OperatorCodes")
        ]
        graph = root.Subgraphs(0)
        tensors = tuple(self.tensor(tensor) for tensor in self.each(graph, "Tensors"))
        operators = tuple(self.operator(op, codes) for op in self.each(graph, "Operators"))
        inputs, outputs = self.integers(graph.InputsAsNumpy()), self.integers(graph.OutputsAsNumpy())
        if not (inputs and outputs) or any(not 0 <= index < len(tensors) for index in (*inputs, *outputs)):
            raise ValueError("no inputs or outputs, or they refer to tensors that are not there")
        _check_order(operators, len(tensors))
        named = [(self.text(s.SignatureKey()), s.SubgraphIndex()) for s in self.each(root, "SignatureDefs")]
        signatures, others = tuple(name for name, _ in named), tuple(name for name, index in named if index)
        entries = ((self.text(m.Name()), m.Buffer()) for m in self.each(root, "Metadata"))
        metadata = {name: self.data(buffer) for name, buffer in entries}
        size, count = len(self.content), root.SubgraphsLength()
        return ModelInfo(tensors, operators, inputs, outputs, size, count, signatures, metadata, others)

    def data(self, index: int) -> memoryview:
        """A buffer's bytes, in place; `Offset` is where a file of over 2 GB keeps them, behind the tables."""
        if not 0 <= index < self.root.BuffersLength():
            raise ValueError("a tensor refers to a buffer that is not there")
        buffer = self.root.Buffers(index)
        if buffer.Offset() > 1:
            end = buffer.Offset() + buffer.Size()
            if end > len(self.content):
                raise ValueError("a buffer lies beyond the end of the file")
            return memoryview(self.content)[buffer.Offset() : end]
        data = buffer.DataAsNumpy()
        return memoryview(b"") if isinstance(data, int) or not len(data) else memoryview(data)

    def tensor(self, tensor: Any) -> TensorInfo:
        shape, dtype = self.integers(tensor.ShapeAsNumpy()), _name("TensorType", tensor.Type())
        if len(shape) > MAX_RANK or any(n < 0 for n in shape):
            raise ValueError(f"a tensor of shape {list(shape[:MAX_RANK])}")
        data, bits = self.data(tensor.Buffer()), BITS.get(dtype)
        if len(data) and bits and tensor.Sparsity() is None and len(data) != -(-math.prod(shape) * bits // 8):
            raise ValueError(f"a tensor of {dtype} {list(shape)} has {len(data)} bytes of data")
        q = tensor.Quantization()
        scale, zero, axis, blockwise = np.zeros(0, np.float32), np.zeros(0, np.int64), 0, False
        if q is not None and q.ScaleLength():
            scale, axis = q.ScaleAsNumpy(), q.QuantizedDimension()
            zero = q.ZeroPointAsNumpy() if q.ZeroPointLength() else np.zeros(len(scale), np.int64)
            self.spend(scale.nbytes)
            if not np.isfinite(scale).all() or len(zero) != len(scale):
                raise ValueError("a tensor's scales are no finite numbers, or not as many as its zero points")
        if q is not None:
            blockwise = _names("QuantizationDetails").get(q.DetailsType()) == "BlockwiseQuantization"
        signature = self.integers(tensor.ShapeSignatureAsNumpy())
        if len(signature) != len(shape) or min(signature, default=0) >= 0:
            signature = ()
        return TensorInfo(self.text(tensor.Name()), shape, dtype, scale, zero, axis, data, blockwise, signature)

    def operator(self, op: Any, codes: Sequence[tuple[str, int, str]]) -> OperatorInfo:
        name, version, custom = codes[op.OpcodeIndex()]
        inputs, outputs = self.integers(op.InputsAsNumpy()), self.integers(op.OutputsAsNumpy())
        return OperatorInfo(name, version, inputs, outputs, self.options(name, op), custom)

    def options(self, operator: str, op: Any) -> OperatorOptions:
        """Raises ValueError for options of another operator."""
        kind, table = _name("BuiltinOptions", op.BuiltinOptionsType()), op.BuiltinOptions()
        if not hasattr(self.schema, kind) or table is None:  # NONE, or unknown
            return OperatorOptions()
        if EXPECTED_OPTIONS.get(operator, kind) != kind:
            raise ValueError(f"{operator} with {kind}")
        options = getattr(self.schema, kind)()
        options.Init(table.Bytes, table.Pos)

        def value(name: str, absent: Any) -> Any:
            return getattr(options, name)() if hasattr(options, name) else absent

        def pair(height: str, width: str) -> tuple[int, int] | None:
            found = value(height, None), value(width, None)
            if found[0] is not None and min(found) < 1:
                raise ValueError(f"{operator} with {height} {found[0]} and {width} {found[1]}")
            return None if found[0] is None else found

        return OperatorOptions(
            _name("ActivationFunctionType", value("FusedActivationFunction", 0)),
            pair("StrideH", "StrideW"),
            pair("DilationHFactor", "DilationWFactor"),
            pair("FilterHeight", "FilterWidth"),
            bool(value("HalfPixelCenters", False)),
            bool(value("AlignCorners", False)),
            bool(value("AdjX", False)),
            {name: value(name, 0) for name in OTHERS if hasattr(options, name)},
        )


def _check_order(operators: Sequence[OperatorInfo], tensors: int) -> None:
    """Operators are in the order in which they run: none reads its own output, nor a later one's."""
    maker: dict[int, int] = {}
    for i, op in enumerate(operators):
        for index in op.outputs:
            if not 0 <= index < tensors or maker.setdefault(index, i) != i:
                raise ValueError(f"operator {i} writes a tensor that is not there, or that another one writes")
    for i, op in enumerate(operators):
        if any(not -1 <= index < tensors for index in op.inputs):
            raise ValueError(f"operator {i} refers to a tensor that is not there")
        if any(maker.get(index, -1) >= i for index in op.inputs):
            raise ValueError(f"operator {i} reads what it or a later operator makes")


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
