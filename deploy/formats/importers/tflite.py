"""Float .tflite networks as float nodes.

Weights may be float16 behind DEQUANTIZE, or integers of dynamic range quantization, which are dequantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.formats.importers.builder import NodeBuilder, all_axes
from deploy.formats.importers.fuse import fused
from deploy.formats.importers.network import Array, ImportedNetwork, Operand, Unsupported, Value, refused
from deploy.formats.importers.tflite_op import TfliteOp
from deploy.formats.importers.tflite_operators import HANDLERS
from deploy.formats.tflite.input_shapes import input_shapes, resized
from deploy.formats.tflite.read import ModelInfo, OperatorInfo, TensorInfo, dequantized, parse, read
from hil.errors import ModelError, UsageError
from hil.input_shape import InputShape
from nas.quant.float_graph import INPUT

TYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}


def import_tflite(
    path: Path, shapes: Sequence[InputShape] = (), outputs: Sequence[str] = (), start: str = ""
) -> ImportedNetwork:
    """The float network in `path`, cut by `outputs` and `start`; `shapes` gives inputs the sizes that it leaves open.

    Raises `UsageError` for the call, `ModelError` for the file; both name what to do.
    """
    model = read(path)
    given = input_shapes(model, shapes, str(path))
    if given:
        model = resized(model, path.read_bytes(), given, str(path))
    return _imported(model, str(path), outputs, start)


def imported(content: bytes, where: str, outputs: Sequence[str] = (), start: str = "") -> ImportedNetwork:
    """The float network whose file has these bytes. Raises as `import_tflite`."""
    return _imported(parse(content, where), where, outputs, start)


def _imported(model: ModelInfo, where: str, outputs: Sequence[str], start: str) -> ImportedNetwork:
    ends = _ends(model, where, outputs)
    if start:
        model = _beginning_at(model, where, start)
    work = _Import(model, where)
    for index in _needed(model, ends):
        work.take(index)
    if work.reasons:
        raise refused(where, work.reasons)
    found = {}
    for end in ends:
        value = work.known.get(end)
        if not isinstance(value, Value):
            raise ModelError(f"{where}: output '{model.tensors[end].name}' does not depend on the input: leave it out")
        found[model.tensors[end].name or str(end)] = work.b.output(value)
    return fused(ImportedNetwork(tuple(work.b.nodes), work.source, found, model.tensors[model.inputs[0]].name or INPUT))


def _ends(model: ModelInfo, where: str, outputs: Sequence[str]) -> list[int]:
    names = {model.tensors[i].name: i for op in model.operators for i in op.outputs}
    for name in outputs:
        if name not in names:
            raise UsageError(
                f"{where}: --outputs {name}: no operator computes a tensor of that name; `hilnas inspect` lists them"
            )
    return [names[name] for name in outputs] or list(model.outputs)


def _beginning_at(model: ModelInfo, where: str, start: str) -> ModelInfo:
    """`model` with that tensor as its input."""
    names = {model.tensors[i].name: i for op in model.operators for i in op.inputs if i >= 0}
    if start not in names or len(model.tensors[names[start]].data):
        raise UsageError(
            f"{where}: --input {start}: no operator reads a tensor of that name; `hilnas inspect` lists them"
        )
    return replace(model, inputs=(names[start],))


def _needed(model: ModelInfo, ends: Sequence[int]) -> list[int]:
    wanted, kept = set(ends), []
    for index in reversed(range(len(model.operators))):
        if (wanted - set(model.inputs)).intersection(model.operators[index].outputs):
            wanted.update(model.operators[index].inputs)
            kept.append(index)
    return kept[::-1]


class _Import:
    """Takes a model's operators one by one.

    Attributes:
        known: every tensor that could be imported, or is constant, by its number.
        reasons: the operators that could not, and why.
        lost: the tensors that depend on them.
    """

    def __init__(self, model: ModelInfo, where: str) -> None:
        self.model, self.b = model, NodeBuilder((1, 2, 3))
        self.reasons: list[tuple[str, str]] = []
        self.lost: set[int] = set()
        if len(model.inputs) != 1:
            names = ", ".join(model.tensors[i].name for i in model.inputs)
            raise ModelError(f"{where}: {len(model.inputs)} inputs ({names}): networks with one input are supported")
        tensor = model.tensors[model.inputs[0]]
        if tensor.dtype != "FLOAT32":
            raise ModelError(
                f"{where}: input '{tensor.name}' holds {tensor.dtype}: give the float network that it was made from"
            )
        self.source = self.b.input(tensor.shape, all_axes(tensor.shape))
        self.known: dict[int, Operand] = {model.inputs[0]: self.source}

    def take(self, index: int) -> None:
        info = self.model.operators[index]
        if self.lost.intersection(info.inputs) and info.name in HANDLERS:
            self.lost.update(info.outputs)  # the operator that could not be imported is named already
            return
        try:
            self.known.update(zip(info.outputs, self._results(info), strict=False))
        except Unsupported as error:
            name = self.model.tensors[info.outputs[0]].name if info.outputs else str(index)
            self.reasons.append((f"'{name}' ({info.custom or info.name})", str(error)))
            self.lost.update(info.outputs)

    def _results(self, info: OperatorInfo) -> Sequence[Operand]:
        inputs = [None if i < 0 else self._operand(i) for i in info.inputs]
        if info.name == "DEQUANTIZE" and isinstance(inputs[0], np.ndarray):
            return [inputs[0].astype(np.float32)]
        handler = HANDLERS.get(info.name)
        if handler is None:
            raise Unsupported("a custom operator" if info.name == "CUSTOM" else "there is no float node for it")
        result = self.model.tensors[info.outputs[0]]
        try:
            return handler(TfliteOp(info, inputs, result.name or str(info.outputs[0]), result.shape, self.b))
        except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError, RuntimeError) as error:
            raise Unsupported(f"its shapes do not fit together ({type(error).__name__}: {error})") from None

    def _operand(self, index: int) -> Operand:
        if index not in self.known:
            self.known[index] = _constant(self.model.tensors[index])
        return self.known[index]


def _constant(tensor: TensorInfo) -> Array:
    if not len(tensor.data) and min(tensor.shape, default=1):
        raise Unsupported(f"it reads '{tensor.name}', which nothing computes")
    if len(tensor.scale) and tensor.dtype == "INT8":  # weights alone are integers: dynamic range quantization
        return dequantized(tensor)
    if tensor.dtype not in TYPES:
        raise Unsupported(f"its constant '{tensor.name}' holds {tensor.dtype}: give the float network")
    array: Array = np.frombuffer(tensor.data, TYPES[tensor.dtype]).reshape(tensor.shape)
    return array
