"""ONNX networks as float nodes. What cannot be imported is named with its node, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.formats.importers import onnx_arithmetic, onnx_layers, onnx_layout, onnx_resize
from deploy.formats.importers.builder import NodeBuilder, all_axes
from deploy.formats.importers.fuse import fused
from deploy.formats.importers.network import (
    Array,
    ImportedNetwork,
    Operand,
    Shapes,
    Unsupported,
    Value,
    refused,
    static,
)
from deploy.formats.importers.onnx_graph import REAL_TYPES, OnnxGraph, OnnxNode, evaluate, read
from deploy.formats.importers.onnx_op import Handlers, Op
from hil.errors import ModelError, UsageError
from hil.input_shape import InputShape
from nas.quant.float_graph import INPUT, Const

PARTS = (onnx_layers, onnx_arithmetic, onnx_layout, onnx_resize)
HANDLERS: Handlers = {kind: handler for part in PARTS for kind, handler in part.HANDLERS.items()}
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def import_onnx(
    path: Path, shapes: Sequence[InputShape] = (), outputs: Sequence[str] = (), start: str = ""
) -> ImportedNetwork:
    """The network in `path`; `shapes` gives an input the sizes that its file leaves open, `outputs` and `start` cut it.

    Raises `UsageError` for the call, `ModelError` for the file; both name what to do.
    """
    given = {entry.name: entry.shape for entry in shapes}
    graph = beginning_at(path, start, given, outputs) if start else read(path)
    network = imported(graph, str(path), given, outputs)
    computed = {node.name for node in network.nodes if not isinstance(node, Const)} | {INPUT}
    for name, value in network.outputs.items():
        if value.tensor not in computed:
            raise ModelError(f"{path}: output '{name}' is a constant: leave it out, give the others with --outputs")
    return network


def beginning_at(path: Path, start: str, shapes: Shapes, outputs: Sequence[str]) -> OnnxGraph:
    """The graph in `path` with that tensor as its input, and those that what comes after it reads besides."""
    graph = read(path, infer=True)
    if not any(start in node.inputs for node in graph.nodes) or start in graph.constants:
        raise UsageError(f"{path}: --input {start}: no node reads a tensor of that name")
    known = graph.tensors | {name: (of, graph.types[name]) for name, of in graph.inputs.items()}
    sizes, kind = known.get(start, (None, "FLOAT"))
    if sizes is None and start in shapes:
        sizes = (None,) * len(shapes[start])
    if sizes is None:
        raise UsageError(
            f"{path}: the file does not say the shape of '{start}': add --input-shape {start}=1xN, with its sizes"
        )
    nodes = tuple(node for node in graph.nodes if start not in node.outputs)
    read_on = {name for node in _needed(nodes, tuple(outputs) or graph.outputs) for name in node.inputs}
    inputs = {name: of for name, of in graph.inputs.items() if name in read_on} | {start: sizes}
    return replace(graph, nodes=nodes, inputs=inputs, types={**graph.types, start: kind})


def imported(
    graph: OnnxGraph, where: str, shapes: Shapes, outputs: Sequence[str] = (), bound: Mapping[str, Array] | None = None
) -> ImportedNetwork:
    """The network of `graph`, some of whose inputs are `bound` to constants. Raises as `import_onnx`."""
    names = tuple(outputs) or graph.outputs
    made = {name for node in graph.nodes for name in node.outputs}
    unknown = [name for name in names if name not in made]
    if unknown:
        raise UsageError(f"{where}: --outputs {unknown[0]}: no node computes a tensor of that name")
    work = _Import(graph, where, {**graph.constants, **(bound or {})})
    source = work.source(shapes)
    nodes = _needed(graph.nodes, names)
    for node in nodes:
        work.take(node)
    if work.reasons:
        raise refused(where, work.reasons)
    try:
        ends = {name: work.end(name) for name in names}
    except Unsupported as error:
        raise refused(where, [("an output", str(error))]) from None
    return fused(ImportedNetwork(tuple(work.builder.nodes), source, ends, work.source_name))


def _needed(nodes: Sequence[OnnxNode], outputs: Sequence[str]) -> list[OnnxNode]:
    """Those that some output depends on, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


class _Import:
    """Takes a graph's nodes one by one.

    Attributes:
        known: every tensor that could be imported, or is constant, by its name in the file.
        reasons: the nodes that could not, and why.
        lost: the tensors that depend on them.
    """

    def __init__(self, graph: OnnxGraph, where: str, constants: Mapping[str, Array]) -> None:
        self.graph, self.where = graph, where
        self.builder = NodeBuilder((2, 3, 1))
        self.known: dict[str, Operand] = dict(constants)
        self.source_name = INPUT
        self.reasons: list[tuple[str, str]] = []
        self.lost: set[str] = set()

    def source(self, shapes: Shapes) -> Value:
        """The one input, which the network's images go to."""
        names = [name for name in self.graph.inputs if name not in self.known]
        if len(names) != 1:
            listed = ", ".join(names) or "none"
            raise ModelError(f"{self.where}: {len(names)} inputs ({listed}): networks with one input are supported")
        name = names[0]
        if self.graph.types[name] not in REAL_TYPES:
            raise ModelError(
                f"{self.where}: input '{name}' holds {self.graph.types[name]}: networks that read floats are "
                "supported; cut it behind the cast"
            )
        shape = static(self.where, name, self.graph.inputs[name], shapes)
        value = self.builder.input(shape, self._first_axes(name, shape))
        self.known[name], self.source_name = value, name
        return value

    def _first_axes(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(H, W, C) of (1, C, H, W), unless the network turns such an input around itself: then it is (1, H, W, C)."""
        if len(shape) != 4 or shape[0] != 1:
            return tuple(range(1 if shape[:1] == (1,) else 0, len(shape)))
        readers = [node for node in self.graph.nodes if name in node.inputs]
        turned = all(node.kind == "Transpose" and node.attributes.get("perm") == (0, 3, 1, 2) for node in readers)
        return (1, 2, 3) if turned and readers else (2, 3, 1)

    def end(self, name: str) -> Value:
        """An output of the network."""
        value = self.known[name]
        if isinstance(value, Value):
            return self.builder.output(value)
        axes = all_axes(value.shape)
        return Value(self.builder.constant(name, value, axes), value.shape, axes)

    def take(self, node: OnnxNode) -> None:
        """Import one node; where that fails, or what it reads is missing, its results are unknown."""
        if self.lost.intersection(node.inputs) and node.kind in HANDLERS:
            self.lost.update(node.outputs)  # the node that could not be imported is named already
            return
        try:
            for name, result in zip(node.outputs, self._results(node), strict=False):
                self.known[name] = result
        except Unsupported as error:
            self.reasons.append((str(node), str(error)))
            self.lost.update(node.outputs)

    def _results(self, node: OnnxNode) -> Sequence[Operand]:
        constant = all(not name or isinstance(self.known.get(name), np.ndarray) for name in node.inputs)
        if node.kind in CONTROL_FLOW:
            raise Unsupported("control flow: export the branch that is taken")
        if constant and node.kind not in RANDOM:
            found = [self.known[name] if name else None for name in node.inputs]
            return evaluate(node, [None if array is None else np.asarray(array) for array in found], self.graph.opset)
        handler = HANDLERS.get(node.kind)
        if handler is None:
            raise Unsupported("there is no float node for it")
        for name in node.inputs:
            if name and name not in self.known:
                raise Unsupported(f"it reads '{name}', which no node before it computes")
        inputs = [self.known[name] if name else None for name in node.inputs]
        try:
            return handler(Op(node, inputs, self.builder, self.graph.opset))
        except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError, RuntimeError) as error:
            raise Unsupported(
                f"its attributes or shapes do not fit together ({type(error).__name__}: {error})"
            ) from None
