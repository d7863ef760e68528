"""What a .tflite file holds, operator by operator: shapes, types, how weights are stored, and multiply-accumulates."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from deploy.formats.tflite.read import ModelInfo, TensorInfo
from deploy.targets.inspected_operator import Operator, Shape, inspect_operator
from deploy.targets.precision import requested_bits, widths
from hil.errors import ModelError

METADATA_NAME = "hilnas"  # the writer's
MAX_DEPTH = 32  # of the metadata, so that no later reader runs out of stack


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of the model; `scale` is empty where it is not quantized.

    `signature` is its shape with -1 for each size that the file leaves open; empty where it leaves none open.
    """

    name: str
    shape: Shape
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    signature: Shape = ()


@dataclass(frozen=True)
class Inspection:
    """A model's first subgraph.

    Attributes:
        parameters: elements of the constants that operators read, without sizes, axes and other plain integers.
        weight_bytes: stored bytes of these parameters, biases included; a shared tensor counts once.
        operators_by_kind: how many there are of each.
        stored_bits: the widths, ascending, in which the file holds weights: 4 for INT4, 8 for an int8 container.
        executed_bits: the widths in which they are multiplied (`Operator.executed_bits`).
        requested_bits: the widths that the weights were quantized to, from our writer's metadata; None if it
            has none. A width below the stored one saves space only in the packed form (`deploy.formats.pack`), and one
            below the executed one saves no time.
        hilnas: the metadata that our writer put in, None if there is none.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    macs: int
    parameters: int
    weight_bytes: int
    file_bytes: int
    operators_by_kind: Mapping[str, int]
    subgraphs: int
    signatures: tuple[str, ...]
    requested_bits: tuple[int, ...] | None
    stored_bits: tuple[int, ...]
    executed_bits: tuple[int, ...]
    hilnas: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect_model(model: ModelInfo) -> Inspection:
    """Raises `ModelError` for an operator whose tensors do not fit its kind, and for unreadable hilnas metadata."""
    sources = {
        op.outputs[0]: op.inputs[0] for op in model.operators if op.name == "DEQUANTIZE" and op.inputs and op.outputs
    }
    readers: dict[int, list[str]] = defaultdict(list)
    for op in model.operators:
        for index in set(op.inputs):
            readers[index].append(op.name)
    operators = []
    for i, op in enumerate(model.operators):
        try:
            operators.append(inspect_operator(i, op, model, sources, readers))
        except (ValueError, IndexError) as error:
            raise ModelError(
                f"operator {i} ({op.name}) has other tensors than its kind: {error}; export again"
            ) from None
    constants, metadata = _parameters(model), _metadata(model)
    return Inspection(
        tuple(operators),
        tuple(_graph_tensor(model.tensors[i]) for i in model.inputs),
        tuple(_graph_tensor(model.tensors[i]) for i in model.outputs),
        sum(op.macs for op in operators),
        sum(prod(t.shape) for t in constants),
        sum(len(t.data) for t in constants),
        model.size_bytes,
        dict(Counter(op.custom or op.name for op in operators).most_common()),
        model.subgraphs,
        model.signatures,
        requested_bits(metadata),
        widths(op.weight_bits for op in operators),
        widths(op.executed_bits for op in operators),
        metadata,
    )


def _parameters(model: ModelInfo) -> list[TensorInfo]:
    read = {i for op in model.operators for i in op.inputs if i >= 0}
    constants = [model.tensors[i] for i in sorted(read) if len(model.tensors[i].data)]
    plain = ("INT32", "INT64", "BOOL", "STRING")
    return [t for t in constants if t.dtype not in plain or len(t.scale)]


def _graph_tensor(tensor: TensorInfo) -> GraphTensor:
    return GraphTensor(
        tensor.name,
        tensor.shape,
        tensor.dtype,
        tuple(float(s) for s in tensor.scale),
        tuple(int(z) for z in tensor.zero_point),
        tensor.signature,
    )


def _metadata(model: ModelInfo) -> Mapping[str, Any] | None:
    if METADATA_NAME not in model.metadata:
        return None
    try:
        found = json.loads(bytes(model.metadata[METADATA_NAME]).rstrip(b"\0"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        found = None
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [
            v for at in level if isinstance(at, dict | list) for v in (at.values() if isinstance(at, dict) else at)
        ]
    if not isinstance(found, dict) or level:
        raise ModelError(
            f"its metadata '{METADATA_NAME}' is no JSON object of at most {MAX_DEPTH} levels; write the model again"
        )
    return found


def _no_number(word: str) -> None:
    raise ValueError(word)
