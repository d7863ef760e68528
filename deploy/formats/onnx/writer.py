"""Write an `IntegerGraph` as a QDQ ONNX model: a second opinion on the same integers, in onnxruntime.

The inputs and outputs are the .tflite file's, of its names, types and shapes, channels last, so that one golden pair
serves both files. The bytes are a pure function of the graph, the metadata and the form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from deploy.formats.onnx import layers, moving, resizing
from deploy.formats.onnx.qdq import QdqModel
from deploy.formats.tflite.operators import Form
from hil.errors import UsageError
from nas.errors import QuantizationError
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator, QAveragePool, Weighted

OPSET, IR_VERSION = 21, 10  # both of ONNX 1.16: old enough for runtimes on boards, and all that is needed
METADATA_NAME = "hilnas"
INT8 = Form()

EMITTERS: Mapping[type, Callable[[Operator, QdqModel], None]] = {
    **layers.EMITTERS,
    **moving.EMITTERS,
    **resizing.EMITTERS,
}


def _refusals(graph: IntegerGraph, form: Form) -> Iterator[str]:
    """Of every operator that cannot be written, its name and the reason."""
    for op in graph.operators:
        if type(op) not in EMITTERS:
            yield f"'{op.name}': {type(op).__name__[1:]} has no form in ONNX; take .tflite"
        elif isinstance(op, QAveragePool) and not layers.narrower(layers.window(op, graph.tensors[op.x])):
            yield f"'{op.name}': its padding is as wide as its window, of which nothing would be left to average"
        elif isinstance(op, Weighted) and form.activations == "uint8" and len(op.weight_scale) > 1:
            yield f"'{op.name}': uint8 weights have one scale; quantize with granularity = \"tensor\""
        elif isinstance(op, Weighted) and form.few_bits == "int4" and op.bits == 4:
            yield f"'{op.name}': 4-bit weights are written as int8 here; leave few_bits = \"int8\""


def check_onnx() -> None:
    """`UsageError` where the package onnx is not installed."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UsageError("writing ONNX needs the package onnx: pip install 'hilnas[onnx]'") from None


def to_onnx(graph: IntegerGraph, metadata: Mapping[str, Any] | None = None, form: Form = INT8) -> bytes:
    """The ONNX file of `graph`: batch 1; `metadata` goes in as JSON under 'hilnas'.

    Raises `UsageError` where the package onnx is not installed, `QuantizationError` naming every operator that cannot
    be written in this form, and why.
    """
    refusals = "; ".join(_refusals(graph, form))
    if refusals:
        raise QuantizationError(f"not as ONNX: {refusals}")
    check_onnx()
    graph = moving.without_requantizing(graph)
    source_name, *names = graph.file_names or (graph.input, *graph.outputs)
    model = QdqModel(graph, form, (source_name, *names))
    source = graph.tensors[graph.input]
    floats = form.ends == "float"
    if floats:
        model.quantize(graph.input, source_name, "file")
    else:
        model.index(graph.input, source_name, "file")
    for op in graph.operators:
        EMITTERS[type(op)](op, model)
    for tensor, name in zip(graph.outputs, names, strict=True):
        as_real = floats and graph.tensors[tensor].dtype != "int32"
        model.end(model.real(tensor, "file") if as_real else model.integers(tensor, "file"), name)
    sinks = [graph.tensors[name] for name in graph.outputs]
    ends = [_end(model, *end) for end in zip((source, *sinks), (source_name, *names), strict=True)]

    helper = model.helper
    body = helper.make_graph(model.nodes, "main", ends[:1], ends[1:], list(model.constants.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hilnas")
    helper.set_model_props(proto, {METADATA_NAME: json.dumps(dict(metadata or {}), sort_keys=True)})
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _end(model: QdqModel, tensor: IntTensor, name: str) -> Any:
    """The declaration of an input or output, as in the .tflite file."""
    kind = "float32" if model.form.ends == "float" else model.form.activations
    dtype = np.dtype(tensor.dtype if tensor.dtype == "int32" else kind)
    return model.helper.make_tensor_value_info(name, model.helper.np_dtype_to_tensor_dtype(dtype), tensor.file_shape)
