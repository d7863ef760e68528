"""The packed form for storage: few-bit weights take their bits on flash, and are restored byte for byte.

A tensor's width is the narrowest that holds its values above an offset, one for each channel or one for all: whatever
takes fewer bytes. Both are read from the file itself. Symmetric weights need one offset, asymmetric ones one each.
`board_scripts/unpack_model.py` undoes it on the board and describes the layout.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from numpy.typing import NDArray

from hil.errors import ModelError

MAGIC = b"HILNASP2"
SMALLEST_TENSOR = 64  # bytes; a smaller one is not worth its place in the header


@dataclass(frozen=True)
class Segment:
    """Where in the file a tensor's values are, and how they are packed.

    Value i has the offset of channel i // `inner` % `channels`.
    """

    start: int
    count: int
    bits: int
    channels: int
    inner: int

    @property
    def stored(self) -> int:
        """Bytes: the offsets, and the values padded to a byte."""
        return self.channels + (self.count * self.bits + 7) // 8

    def channel(self) -> NDArray[np.int64]:
        """Of every value."""
        return np.arange(self.count) // self.inner % self.channels


def _segments(content: bytes) -> list[Segment]:
    """Every int8 constant that fits fewer than 8 bits, in the file's order."""
    model = schema.Model.GetRootAs(content, 0)
    graph, found = model.Subgraphs(0), {}
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        table = model.Buffers(tensor.Buffer())._tab
        field = table.Offset(4)
        if tensor.Type() != schema.TensorType.INT8 or field == 0 or table.VectorLen(field) < SMALLEST_TENSOR:
            continue
        start, count = table.Vector(field), table.VectorLen(field)
        values = np.frombuffer(content, np.int8, count, start)
        ways = (_narrowest(values, start, *layout) for layout in _layouts(tensor, count))
        best = min(ways, key=lambda segment: segment.stored)
        if best.bits < 8:
            found[start] = best
    ordered, end = [], 0
    for start, segment in sorted(found.items()):
        if start >= end:  # tensors of a file that is not ours may overlap: one of them stays as it is
            ordered.append(segment)
            end = start + segment.count
    return ordered


def _layouts(tensor: Any, count: int) -> Iterator[tuple[int, int]]:
    """(channels, inner) of one offset for all, and of one per scale where a tensor has several."""
    yield 1, count
    quantization, rank = tensor.Quantization(), tensor.ShapeLength()
    if quantization is None or quantization.ScaleLength() <= 1:
        return
    axis, shape = quantization.QuantizedDimension(), [tensor.Shape(i) for i in range(rank)]
    if 0 <= axis < rank and shape[axis] == quantization.ScaleLength() and math.prod(shape) == count:
        yield shape[axis], math.prod(shape[axis + 1 :])


def _narrowest(values: NDArray[np.int8], start: int, channels: int, inner: int) -> Segment:
    by_channel = values.reshape(-1, channels, inner)
    span = by_channel.max((0, 2)).astype(int) - by_channel.min((0, 2))
    return Segment(start, len(values), max(int(span.max()).bit_length(), 1), channels, inner)


def _packed(values: NDArray[np.int8], segment: Segment) -> bytes:
    """Each channel's lowest value as its offset, then all values above theirs, most significant bit first."""
    by_channel = values.reshape(-1, segment.channels, segment.inner)
    low = by_channel.min((0, 2))
    above = (values.astype(np.int16) - low[segment.channel()]).astype(np.uint8)
    bits = np.unpackbits(above[:, None], axis=1)[:, 8 - segment.bits :]
    offsets, packed = low.tobytes(), np.packbits(bits.reshape(-1)).tobytes()
    return bytes(offsets + packed)


def pack(content: bytes) -> bytes:
    """A .tflite file with its few-bit weights packed; `unpack_model.py` gives the same bytes back."""
    segments = _segments(content)
    digest = hashlib.sha256(content).hexdigest()
    header = {"size": len(content), "sha256": digest, "segments": [astuple(segment) for segment in segments]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    parts = [MAGIC, len(encoded).to_bytes(4, "big"), encoded]
    rest, at = [], 0
    for segment in segments:
        parts.append(_packed(np.frombuffer(content, np.int8, segment.count, segment.start), segment))
        rest.append(content[at : segment.start])
        at = segment.start + segment.count
    return b"".join([*parts, *rest, content[at:]])


def unpack_file(packed: Path, model: Path) -> int:
    """Write the .tflite file of `packed` as `model`, with the very script that does so on a board; its bytes.

    Raises `ModelError` for a file that cannot be read, is damaged or is not packed, or where `model` cannot be written.
    """
    script = str(files("board_scripts").joinpath("unpack_model.py"))
    done = subprocess.run([sys.executable, "-S", script, packed, model], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1].removeprefix("unpack_model.py: ")
        raise ModelError(f"{said}; give a file that `hilnas pack` made, and room for the model")
    return int(json.loads(done.stdout)["bytes"])
