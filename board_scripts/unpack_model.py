"""Restore a packed model byte for byte: python3 unpack_model.py MODEL.packed MODEL.tflite

Standard library only, Python 3.9 or newer. Layout: b"HILNASP1", the header's length (4 bytes, big-endian), a JSON
header {"size", "sha256", "segments": [[offset, count, bits], ...]}, each segment's values packed at its width
(offset binary, most significant bit first, padded to a byte), then all other bytes of the model in order.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

MAGIC = b"HILNASP1"
LARGEST_BYTES = 1 << 31


class Damaged(Exception):  # noqa: N818
    """The packed file is not whole."""


def values(packed: bytes, count: int, bits: int) -> bytes:
    """`count` signed bytes from their packed form: eight values are `bits` bytes."""
    out = bytearray()
    mask, half = (1 << bits) - 1, 1 << (bits - 1)
    packed = packed + bytes(-len(packed) % bits)
    for start in range(0, len(packed), bits):
        group = int.from_bytes(packed[start : start + bits], "big")
        for position in range(7, -1, -1):
            out.append((((group >> (position * bits)) & mask) - half) & 0xFF)
    return bytes(out[:count])


def header_of(content: bytes) -> tuple[int, str, list[list[int]], int]:
    """(size, sha256, segments, where the packed values start); `Damaged` if it was not packed by the kit."""
    if content[:8] != MAGIC:
        raise Damaged("not a packed model (no HILNASP1)")
    length = int.from_bytes(content[8:12], "big")
    try:
        header = json.loads(content[12 : 12 + length])
        size, segments = int(header["size"]), [[int(n) for n in segment] for segment in header["segments"]]
        digest = str(header["sha256"])
        if any(len(segment) != 3 for segment in segments):
            raise ValueError(segments)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise Damaged("the header is not whole") from None
    end = 0
    for offset, count, bits in segments:
        if offset < end or count < 1 or not 1 <= bits <= 8:
            raise Damaged("the header's segments overlap or are impossible")
        end = offset + count
    if not end <= size <= LARGEST_BYTES:
        raise Damaged("the header's size is impossible")
    return size, digest, segments, 12 + length


def unpack(content: bytes) -> bytes:
    """The model's bytes; `Damaged` unless they are those that were packed."""
    size, digest, segments, at = header_of(content)
    weights = []
    for _, count, bits in segments:
        stored = (count * bits + 7) // 8
        weights.append(values(content[at : at + stored], count, bits))
        at += stored
    rest, taken, model = content[at:], 0, bytearray()
    for segment, weight in zip(segments, weights):  # noqa: B905 (strict= is newer than the board's Python)
        gap = segment[0] - len(model)
        model += rest[taken : taken + gap]
        taken += gap
        model += weight
    model += rest[taken:]
    if len(model) != size or hashlib.sha256(model).hexdigest() != digest:
        raise Damaged("the restored model is not the one that was packed: copy the file again")
    return bytes(model)


def main(argv: list[str]) -> int:
    if len(argv) != 3:
        print("usage: unpack_model.py MODEL.packed MODEL.tflite", file=sys.stderr)
        return 2
    part = Path(argv[2] + ".part")
    try:
        model = unpack(Path(argv[1]).read_bytes())
        part.write_bytes(model)
        part.replace(argv[2])
    except (OSError, Damaged) as error:
        if part.exists():
            part.unlink()  # a full disk needs its room back
        print(f"unpack_model.py: {argv[1]}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"model": argv[2], "bytes": len(model)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
