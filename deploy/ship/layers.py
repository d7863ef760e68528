"""layers.json: how each layer of a model is quantized, read back from its file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from deploy.formats.tflite.read import ModelInfo, OperatorInfo, read
from deploy.run.records import Record
from deploy.run.records.base import OMITTED
from deploy.targets.inspection import inspect_model
from nas.settings import STRICT


@dataclass(frozen=True)
class QuantizedLayer:
    """An operator.

    Attributes:
        weights: the type in which the file holds them; None where it has none.
        scales: how many the weights have: one per tensor, or one per channel.
        scale, zero_point: of its output; None where that is not quantized, as a class map.
    """

    output: str
    operator: str
    weights: str | None = field(default=None, metadata=OMITTED)
    scales: int | None = field(default=None, metadata=OMITTED)
    scale: float | None = field(default=None, metadata=OMITTED)
    zero_point: int | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class QuantizedLayers(Record):
    """A model's quantization.

    Attributes:
        requested_bits, stored_bits, executed_bits: as in a `ModelRecord`.
    """

    requested_bits: tuple[int, ...] | None
    stored_bits: tuple[int, ...]
    executed_bits: tuple[int, ...]
    layers: tuple[QuantizedLayer, ...]

    FILE: ClassVar[str] = "layers.json"
    COMMAND: ClassVar[str] = "bundle export"


def quantized_layers(path: Path) -> QuantizedLayers:
    model = read(path)
    found = inspect_model(model)
    layers = tuple(_layer(model, op) for op in model.operators)
    return QuantizedLayers(found.requested_bits, found.stored_bits, found.executed_bits, layers)


def _layer(model: ModelInfo, op: OperatorInfo) -> QuantizedLayer:
    output = model.tensors[op.outputs[0]]
    constants = (model.tensors[index] for index in op.inputs if index >= 0)
    weights = next((tensor for tensor in constants if len(tensor.data) and len(tensor.scale)), None)
    quantized = len(output.scale) > 0
    return QuantizedLayer(
        output.name,
        op.custom or op.name,
        weights.dtype.lower() if weights else None,
        len(weights.scale) if weights else None,
        float(output.scale[0]) if quantized else None,
        int(output.zero_point[0]) if quantized else None,
    )
