"""How an image becomes numbers, as a file's TFLite Metadata has it (`TFLITE_METADATA`, NormalizationOptions).

The schema is metadata_schema.fbs of tflite-support; only what leads to the input's mean and standard deviation is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deploy.formats.tflite.read import ModelInfo
from hil.errors import ModelError

NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
SUBGRAPHS, INPUTS, PROCESS_UNITS = 3, 2, 4  # fields of ModelMetadata, SubGraphMetadata and TensorMetadata
OPTIONS_TYPE, OPTIONS, NORMALIZATION_OPTIONS = 0, 1, 1  # fields of ProcessUnit, and the union's first member
MEAN, STD = 0, 1  # fields of NormalizationOptions
MOST = 16  # tables and numbers that a true file has at any of these places
READ_ERRORS = (ValueError, IndexError, struct.error, TypeError, OverflowError)


@dataclass(frozen=True)
class Normalization:
    """real = (pixel - mean) / std, the pixel from 0 to 255; one number for all channels, or one for each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def normalization(model: ModelInfo) -> Normalization | None:
    """Of the model's first input; None where its metadata has none. Raises `ModelError` for damaged metadata."""
    if NAME not in model.metadata:
        return None
    try:
        return _first(bytes(model.metadata[NAME]))
    except READ_ERRORS as error:
        raise ModelError(f"its metadata '{NAME}' is damaged ({error}); write it again, or remove it") from None


def _first(content: bytes) -> Normalization | None:
    import flatbuffers
    from flatbuffers.table import Table

    if content[4:8] != IDENTIFIER:
        raise ValueError(f"identifier {content[4:8]!r}")
    root = Table(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))
    for subgraph in _tables(root, SUBGRAPHS):
        for tensor in _tables(subgraph, INPUTS):
            for unit in _tables(tensor, PROCESS_UNITS):
                kind = unit.Offset(4 + 2 * OPTIONS_TYPE)
                options = unit.Offset(4 + 2 * OPTIONS)
                if kind and options and content[kind + unit.Pos] == NORMALIZATION_OPTIONS:
                    found = Table(content, 0)
                    unit.Union(found, options)
                    return checked(_floats(found, MEAN), _floats(found, STD))
            return None  # further inputs are no image of ours
    return None


def _tables(table: Any, field: int) -> Iterator[Any]:
    from flatbuffers.table import Table

    offset = table.Offset(4 + 2 * field)
    for i in range(_length(table, offset)):
        yield Table(table.Bytes, table.Indirect(table.Vector(offset) + 4 * i))


def _floats(table: Any, field: int) -> tuple[float, ...]:
    offset = table.Offset(4 + 2 * field)
    start = table.Vector(offset) if offset else 0
    return struct.unpack_from(f"<{_length(table, offset)}f", table.Bytes, start)


def _length(table: Any, offset: int) -> int:
    length = int(table.VectorLen(offset)) if offset else 0
    if length > MOST:
        raise ValueError(f"{length} entries")
    return length


def checked(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
    """`ValueError` for numbers that a file cannot mean."""
    finite = all(abs(value) < float("inf") for value in (*mean, *std))
    if {len(mean), len(std)} - {1, 3} or not finite or 0 in std:
        raise ValueError(f"mean {list(mean)}, standard deviation {list(std)}")
    return Normalization(mean, std)
