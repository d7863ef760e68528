"""The packed form for storage: few-bit weights take their bits on flash, and are restored byte for byte.

A weight tensor's width is the narrowest that holds its values, read from the file itself: nothing has to be believed.
`board_scripts/unpack_model.py` undoes it on the board and describes the layout.
"""

from __future__ import annotations

import hashlib
import json

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from numpy.typing import NDArray

MAGIC = b"HILNASP1"
SMALLEST_TENSOR = 64  # bytes; a smaller one is not worth its place in the header


def _segments(content: bytes) -> list[tuple[int, int, int]]:
    """(offset, count, bits) of every int8 constant that fits fewer than 8 bits, in the file's order."""
    model = schema.Model.GetRootAs(content, 0)
    graph, found = model.Subgraphs(0), {}
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        table = model.Buffers(tensor.Buffer())._tab
        field = table.Offset(4)
        if tensor.Type() != schema.TensorType.INT8 or field == 0:
            continue
        start, count = table.Vector(field), table.VectorLen(field)
        values = np.frombuffer(content, np.int8, count, start)
        bits = max(int(-values.min()).bit_length(), int(values.max()).bit_length() + 1, 2) if count else 8
        if bits < 8 and count >= SMALLEST_TENSOR:
            found[start] = (start, count, bits)
    return [found[start] for start in sorted(found)]


def _packed(values: NDArray[np.int8], bits: int) -> bytes:
    """Offset binary, most significant bit first, padded to a byte."""
    shifted = (values.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    return np.packbits(np.unpackbits(shifted[:, None], axis=1)[:, 8 - bits :].reshape(-1)).tobytes()


def pack(content: bytes) -> bytes:
    """A .tflite file with its few-bit weights packed; `unpack_model.py` gives the same bytes back."""
    segments = _segments(content)
    header = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "segments": segments}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    parts = [MAGIC, len(encoded).to_bytes(4, "big"), encoded]
    rest, at = [], 0
    for start, count, bits in segments:
        parts.append(_packed(np.frombuffer(content, np.int8, count, start), bits))
        rest.append(content[at:start])
        at = start + count
    return b"".join([*parts, *rest, content[at:]])
