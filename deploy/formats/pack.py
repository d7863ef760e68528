"""The packed form for storage: few-bit weights take their bits on flash, and are restored byte for byte.

A weight tensor's width is the narrowest that holds its values, read from the file itself.
`board_scripts/unpack_model.py` undoes it on the board and describes the layout.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from numpy.typing import NDArray

from hil.errors import ModelError

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
    ordered, end = [], 0
    for start, count, bits in sorted(found.values()):
        if start >= end:  # tensors of a file that is not ours may overlap: one of them stays as it is
            ordered.append((start, count, bits))
            end = start + count
    return ordered


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
