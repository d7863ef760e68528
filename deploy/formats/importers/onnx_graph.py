"""An ONNX file as plain records: nodes, constants, inputs and outputs, checked before they are believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy.formats.importers.network import Array, Sizes, Unsupported
from hil.errors import ModelError, UsageError

OLDEST_OPSET = 11
DOMAINS = ("", "ai.onnx")
MOST_ELEMENTS = 1 << 28  # of one constant that is computed while a network is imported
REAL_TYPES = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")
EXPANDING = ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "OneHot", "EyeLike", "Resize")
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | Array | None


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """A node; an input that is left out is an empty name. `proto` is what onnx itself evaluates."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    proto: Any

    def __str__(self) -> str:
        return f"'{self.name}' ({self.kind})"


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """Attributes:
    inputs: those without a constant: the sizes of each, None where the file leaves one open.
    types: what each of them holds, as FLOAT.
    tensors: of what nodes compute, as far as it was asked for and is known, the sizes and what it holds.
    """

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Array]
    inputs: Mapping[str, tuple[int | None, ...]]
    types: Mapping[str, str]
    outputs: tuple[str, ...]
    opset: int
    tensors: dict[str, tuple[Sizes | None, str]] = field(default_factory=dict)


def read(path: Path, *, infer: bool = False) -> OnnxGraph:
    """The graph in `path`; `infer`: with what is known of its tensors.

    Raises `UsageError` where the file cannot be read, else as `parse` does.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give the path of an .onnx file") from None
    return parse(content, str(path), path.parent, infer=infer)


def parse(content: bytes, where: str, folder: Path | None = None, *, infer: bool = False) -> OnnxGraph:
    """The graph whose file has these bytes; weights that it keeps in other files are in `folder`.

    Raises `ModelError` naming `where`, `UsageError` where onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise UsageError("reading ONNX needs the package onnx: pip install 'hilnas[onnx]'") from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise ModelError(
            f"{where}: no ONNX model, or one cut short ({type(error).__name__}); export or download it again"
        ) from None
    opset = _opset(model, where)
    _load_external(model, where, folder)
    try:
        if model.functions:
            from onnx import inliner

            model = inliner.inline_local_functions(model)
        if infer:
            with suppress(onnx.shape_inference.InferenceError):  # a node of another domain: what the file says remains
                model = onnx.shape_inference.infer_shapes(model)
        return _graph(model.graph, opset)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{where}: a damaged ONNX model ({type(error).__name__}: {error}); export it again") from None


def _opset(model: Any, where: str) -> int:
    import onnx

    opset = max((entry.version for entry in model.opset_import if entry.domain in DOMAINS), default=0)
    newest = onnx.defs.onnx_opset_version()
    if not model.graph.node or not opset:
        raise ModelError(f"{where}: no ONNX model with nodes and an opset; export or download it again")
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"{where}: opset {opset}; from {OLDEST_OPSET} on are supported: export it with a newer one, or convert it: "
            "onnx.version_converter.convert_version(onnx.load(FILE), 17)"
        )
    if opset > newest:
        raise ModelError(
            f"{where}: opset {opset}, but the package onnx knows up to {newest}: update it, or export lower"
        )
    return opset


def _load_external(model: Any, where: str, folder: Path | None) -> None:
    from onnx import external_data_helper as external

    for tensor in model.graph.initializer:
        if external.uses_external_data(tensor):
            named = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            try:
                if folder is None:
                    raise FileNotFoundError
                external.load_external_data_for_tensor(tensor, str(folder))
            except Exception as error:
                raise ModelError(
                    f"{where}: the weights '{tensor.name}' are in another file, '{named}', which cannot be read "
                    f"({type(error).__name__}): put it beside the model"
                ) from None


def _graph(graph: Any, opset: int) -> OnnxGraph:
    import onnx

    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for tensor in graph.sparse_initializer:
        raise ModelError(f"'{tensor.values.name}' is sparse: export dense weights")
    nodes = tuple(_node(node, i) for i, node in enumerate(graph.node))
    inputs: dict[str, tuple[int | None, ...]] = {}
    types: dict[str, str] = {}
    for entry in graph.input:
        if entry.name not in constants:
            sizes, types[entry.name] = _tensor(entry)
            inputs[entry.name] = sizes or ()
    tensors = {entry.name: _tensor(entry) for entry in (*graph.value_info, *graph.output)}
    return OnnxGraph(nodes, constants, inputs, types, tuple(entry.name for entry in graph.output), opset, tensors)


def _tensor(entry: Any) -> tuple[Sizes | None, str]:
    """Its sizes, if the file has them, and what it holds."""
    import onnx

    tensor = entry.type.tensor_type
    sizes = tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in tensor.shape.dim
    )
    return (sizes if tensor.HasField("shape") else None), onnx.TensorProto.DataType.Name(tensor.elem_type)


def _node(node: Any, index: int) -> OnnxNode:
    kind = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
    attributes = {entry.name: _attribute(entry) for entry in node.attribute}
    name = node.name or (node.output[0] if node.output else str(index))
    return OnnxNode(kind, name, tuple(node.input), tuple(node.output), attributes, node)


def _attribute(entry: Any) -> Attribute:
    """None for what no importable node has: graphs, sparse tensors, types."""
    import onnx

    value = onnx.helper.get_attribute_value(entry)
    match value:
        case bytes():
            return value.decode("utf8", "replace")
        case int() | float():
            return value
        case onnx.TensorProto():
            array: Array = onnx.numpy_helper.to_array(value)
            return array
        case [*numbers] if all(isinstance(number, int | float) for number in numbers):
            return tuple(numbers)
    return None


def evaluate(node: OnnxNode, inputs: Sequence[Array | None], opset: int) -> list[Array]:
    """What a node computes from constants alone, as onnx's own reference does. Raises `Unsupported` where it fails."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.kind in EXPANDING and _expands_to(inputs) > MOST_ELEMENTS:
        raise Unsupported(f"it makes a constant of more than {MOST_ELEMENTS} elements")
    named = {name: array for name, array in zip(node.inputs, inputs, strict=True) if array is not None}
    graph = onnx.GraphProto(
        name="constant",
        node=[node.proto],
        input=[onnx.ValueInfoProto(name=name) for name in named],
        output=[onnx.ValueInfoProto(name=name) for name in node.outputs if name],
    )
    try:
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        found = iter(ReferenceEvaluator(model).run(None, named))
        return [np.asarray(next(found)) if name else np.zeros(0) for name in node.outputs]
    except Exception as error:
        raise Unsupported(f"its constants cannot be computed ({type(error).__name__}: {error})") from None


def _expands_to(inputs: Sequence[Array | None]) -> float:
    """An upper bound of the elements that a node makes which is given sizes, repetitions or limits."""
    sizes = [array for array in inputs if array is not None]
    numbers = [
        abs(float(n)) for array in sizes if array.size < 64 for n in array.reshape(-1) if array.dtype.kind in "iuf"
    ]
    return max((array.size for array in sizes), default=1) * math.prod(max(n, 1.0) for n in numbers)
