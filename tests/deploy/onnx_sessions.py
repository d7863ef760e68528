"""What onnxruntime gives for the QDQ model of an integer graph, and for one operator of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import torch

from deploy.formats.onnx import to_onnx
from deploy.formats.tflite.operators import Form
from nas.quant.file_order import to_file_order
from nas.quant.integer_graph import IntegerGraph, Operator, reads
from nas.quant.integer_operators import QConstant


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    """One thread, after the model has been checked."""
    onnx.checker.check_model(content, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI, sums of 16 bits saturate
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def opinions(graph: IntegerGraph, given: np.ndarray, form: Form = Form()) -> list[np.ndarray]:  # noqa: B008
    """Of each output, for one input of the .tflite file; of its type and shape."""
    session = session_of(to_onnx(graph, form=form))
    answers = session.run(None, {session.get_inputs()[0].name: given})
    for answer, name in zip(answers, graph.outputs, strict=True):
        tensor = graph.tensors[name]
        kind = "float32" if form.ends == "float" else form.activations
        assert answer.shape == tensor.file_shape and answer.dtype == (tensor.dtype if tensor.dtype == "int32" else kind)
    return answers


def alone(graph: IntegerGraph, op: Operator, env: Mapping[str, torch.Tensor]) -> tuple[IntegerGraph, np.ndarray]:
    """`op` as a graph of its own, whose other inputs are constants with the integers of `env`; and its input's."""
    held = {constant.name for constant in graph.operators if isinstance(constant, QConstant)}
    source = next((x for x in reads(op) if x not in held), reads(op)[0])
    values = {x: to_file_order(env[x]).numpy().astype(graph.tensors[x].dtype) for x in reads(op)}
    constants = [QConstant(x, values[x]) for x in values if x != source]
    given = values[source].reshape(graph.tensors[source].file_shape)
    return IntegerGraph(graph.tensors, (*constants, op), source), given


class OnnxHere:
    """As `deploy.formats.tflite.here.RunHere`: the bytes of an input to those of all outputs."""

    def __init__(self, content: bytes) -> None:
        self.session = session_of(content)

    def outputs(self, data: bytes) -> bytes:
        (source,) = self.session.get_inputs()
        kind = onnx.helper.tensor_dtype_to_np_dtype(
            onnx.TensorProto.DataType.Value(source.type[len("tensor(") : -1].upper())
        )
        given = np.frombuffer(data, kind).reshape(source.shape)
        return b"".join(answer.tobytes() for answer in self.session.run(None, {source.name: given}))
