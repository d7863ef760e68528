"""Others' quantizers on a float graph: TensorFlow's, which its converter has, and onnxruntime's.

Full integers, 8 bits, weights per channel, ranges by their default, which is min-max.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from deploy.formats.tflite.read import parse

Array = NDArray[np.float32]
BETWEEN = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Runnable:
    """A network that runs: from one input, laid out as in its file, to its outputs in their order.

    Attributes:
        left: the operators that compute with floats, by their kind: how many.
    """

    run: Callable[[Array], list[Array]]
    left: Counter[str]


def in_litert(content: bytes) -> Runnable:
    """A .tflite file in LiteRT; integers are made of real inputs, and real outputs of integers."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (source,), ends = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: Array) -> list[Array]:
        interpreter.set_tensor(source["index"], _integers(x.reshape(source["shape"]), source))
        interpreter.invoke()
        return [_real(interpreter.get_tensor(end["index"]), end) for end in ends]

    model = parse(content, "model")
    floats = Counter(
        op.name for op in model.operators if op.name not in BETWEEN and model.tensors[op.outputs[0]].dtype == "FLOAT32"
    )
    return Runnable(run, floats)


def _integers(x: Array, detail: dict[str, Any]) -> NDArray[np.generic]:
    dtype, (scale, zero_point) = detail["dtype"], detail["quantization"]
    if dtype == np.float32:
        return x
    limits = np.iinfo(dtype)
    return (np.rint(x / np.float32(scale)) + zero_point).clip(limits.min, limits.max).astype(dtype)


def _real(y: NDArray[np.generic], detail: dict[str, Any]) -> Array:
    scale, zero_point = detail["quantization"]
    return y if y.dtype == np.float32 else ((y.astype(np.float32) - zero_point) * np.float32(scale))


# TensorFlow's


def float_tflite(path: Path, outputs: Sequence[str]) -> bytes:
    """The float graph as TensorFlow's quantizer takes it: of Keras the converter's, of .tflite with float32 weights."""
    return _cut(path.read_bytes(), outputs) if path.suffix == ".tflite" else _keras(path)


def _keras(path: Path) -> bytes:
    import tensorflow as tf

    class DepthwiseConv2D(tf.keras.layers.DepthwiseConv2D):
        def __init__(self, *, groups: int = 1, **config: Any) -> None:  # Keras 2 wrote groups=1
            super().__init__(**config)

    objects = {"DepthwiseConv2D": DepthwiseConv2D}
    with quiet():
        model = tf.keras.models.load_model(path, custom_objects=objects, compile=False)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        return converter.convert()


def converted(model: Any, data: Sequence[Array]) -> bytes:
    """By TFLiteConverter from a Keras model; integers only."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in data)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet():
        return converter.convert()


def _cut(content: bytes, outputs: Sequence[str]) -> bytes:
    """`content` with float32 weights instead of float16 ones behind DEQUANTIZE, up to `outputs` if some are named.

    The calibrator crashes on float16 weights.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    graph = model.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    if outputs:
        names = [tensor.name.decode() for tensor in graph.tensors]
        graph.outputs = np.array([names.index(name) for name in outputs], np.int32)
        model.signatureDefs = []
    wanted, kept = set(graph.outputs), []
    for operator in reversed(graph.operators):
        if wanted.isdisjoint(operator.outputs):
            continue
        source, end = (graph.tensors[int(ends[0])] for ends in (operator.inputs, operator.outputs))
        stored = model.buffers[source.buffer].data
        if codes[operator.opcodeIndex] == DEQUANTIZE and stored is not None:
            data = np.frombuffer(bytes(stored), np.float16).astype(np.float32)
            buffer = type(model.buffers[0])()
            buffer.data, buffer.offset, buffer.size = np.frombuffer(data.tobytes(), np.uint8), 0, 0
            model.buffers.append(buffer)
            end.buffer = len(model.buffers) - 1
            continue
        kept.append(operator)
        wanted.update(operator.inputs)
    graph.operators = kept[::-1]
    used = sorted({operator.opcodeIndex for operator in kept})  # the calibrator has no DEQUANTIZE, nor custom operators
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in kept:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


DEQUANTIZE = 6


def by_tensorflow(content: bytes, data: Sequence[Array]) -> bytes:
    """The file by TensorFlow's calibrator and its converter's quantizer, as TFLiteConverter calls them."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    def given() -> Iterator[list[Array]]:
        yield from ([x[None]] for x in data)

    with quiet():
        calibrated = Calibrator(content).calibrate(given)
        return bytes(mlir_quantize(calibrated, input_data_type=tf.int8, output_data_type=tf.int8))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


# onnxruntime's


def fixed_onnx(path: Path, shape: Sequence[int], folder: Path) -> Path:
    """The network in `path` of one input shape, prepared as onnxruntime asks for: batch norms folded."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(path)
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    prepared = folder / f"{path.stem}.prepared.onnx"
    with quiet():
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
    return prepared


def by_onnxruntime(prepared: Path, data: Sequence[Array], written: Path) -> None:
    """As onnxruntime writes it for processors: QDQ."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = onnx.load(prepared).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(data)

        def get_next(self) -> dict[str, Array] | None:
            x = next(self.left, None)
            return None if x is None else {name: x[None]}

    with quiet():
        quantize_static(
            prepared,
            written,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )


def in_onnxruntime(path: Path) -> Runnable:
    """A file of ONNX in onnxruntime, as it is written: integers are not fused, since some processors saturate then."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # unused initializers are warned of one by one
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    moved = {"QuantizeLinear", "DequantizeLinear", "Constant", "Cast", "Shape", "Identity"}
    known = {*QDQRegistry, *QLinearOpsRegistry, *moved}
    left = Counter(node.op_type for node in onnx.load(path).graph.node if node.op_type not in known)
    return Runnable(lambda x: session.run(None, {name: x.reshape(session.get_inputs()[0].shape)}), left)
