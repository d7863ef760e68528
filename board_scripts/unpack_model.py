"""Restore a packed model byte for byte: python3 unpack_model.py MODEL.packed MODEL.tflite

Standard library only, Python 3.9 or newer. Layout: b"HILNASP2", the header's length (4 bytes, big-endian), a JSON
header {"size", "sha256", "segments": [[start, count, bits, channels, inner], ...]}, then each segment: its channels'
offsets, one signed byte each, and its values less the offset of theirs (value i is of channel i // inner % channels),
packed at its width, most significant bit first, padded to a byte; then all other bytes of the model in order.
b"HILNASP1", which older versions wrote, has segments [start, count, bits] without offsets: values are less -2^(bits-1).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

FIELDS = {b"HILNASP1": 3, b"HILNASP2": 5}  # of a segment, by the format
LARGEST_BYTES = 1 << 31


class Damaged(Exception):  # noqa: N818
    """The packed file is not whole."""


def values(packed: bytes, count: int, bits: int, offsets: bytes, inner: int) -> bytes:
    """`count` signed bytes from their packed form: eight values are `bits` bytes."""
    out = bytearray()
    mask = (1 << bits) - 1
    packed = packed + bytes(-len(packed) % bits)
    for start in range(0, len(packed), bits):
        group = int.from_bytes(packed[start : start + bits], "big")
        for position in range(7, -1, -1):
            out.append((group >> (position * bits)) & mask)
    channels = len(offsets)
    if channels == 1:
        low = offsets[0]
        return bytes(out[:count]).translate(bytes((value + low) & 0xFF for value in range(256)))
    return bytes((out[i] + offsets[i // inner % channels]) & 0xFF for i in range(count))


def header_of(content: bytes) -> tuple[int, str, list[list[int]], int]:
    """(size, sha256, segments as in HILNASP2, where the packed values start); `Damaged` if the kit did not pack it.

    Segments of HILNASP1 have 0 channels: no offset is stored.
    """
    fields = FIELDS.get(content[:8])
    if fields is None:
        raise Damaged("not a packed model (no HILNASP1 or HILNASP2)")
    length = int.from_bytes(content[8:12], "big")
    try:
        header = json.loads(content[12 : 12 + length])
        size, segments = int(header["size"]), [[int(n) for n in segment] for segment in header["segments"]]
        digest = str(header["sha256"])
        if any(len(segment) != fields for segment in segments):
            raise ValueError(segments)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise Damaged("the header is not whole") from None
    whole = [segment if fields == 5 else [*segment, 0, segment[1]] for segment in segments]
    end = 0
    for start, count, bits, channels, inner in whole:
        impossible = start < end or count < 1 or not 1 <= bits <= 8 or channels < fields - 4 or inner < 1
        if impossible or count % (max(channels, 1) * inner):
            raise Damaged("the header's segments overlap or are impossible")
        end = start + count
    if not end <= size <= LARGEST_BYTES:
        raise Damaged("the header's size is impossible")
    return size, digest, whole, 12 + length


def unpack(content: bytes) -> bytes:
    """The model's bytes; `Damaged` unless they are those that were packed."""
    size, digest, segments, at = header_of(content)
    weights = []
    for _, count, bits, channels, inner in segments:
        end = at + channels + (count * bits + 7) // 8
        if end > len(content):
            raise Damaged("the file ends before its last weights: copy it again")
        offsets = content[at : at + channels] or bytes([-(1 << (bits - 1)) & 0xFF])
        weights.append(values(content[at + channels : end], count, bits, offsets, inner))
        at = end
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


def is_packed(content: bytes) -> bool:
    return content[:8] in FIELDS


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
