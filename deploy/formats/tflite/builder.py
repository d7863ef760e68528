"""The flatbuffers package's builder with its inner loops unrolled: the same bytes, in under half the time.

Only what the generated `Pack` methods call often is here; the rest is inherited. `tests/deploy/formats/test_builder.py`
compares it with the original on full models.
"""

from __future__ import annotations

import struct
from typing import Any

import flatbuffers
from numpy.typing import NDArray

UINT32, INT32 = struct.Struct("<I"), struct.Struct("<i")


class Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Writes from the end of its bytes, which are zero where nothing was written yet: padding costs nothing."""

    Bytes: bytearray
    head: int
    minalign: int
    objectEnd: int  # noqa: N815 (flatbuffers' names, here and below)
    current_vtable: list[int]
    vtables: dict[tuple[int, ...], int]

    def Offset(self) -> int:  # noqa: N802
        return len(self.Bytes) - self.head

    def Prep(self, size: int, additionalBytes: int) -> None:  # noqa: N802, N803
        head = self.head - (-(len(self.Bytes) - self.head + additionalBytes) & (size - 1))
        if head < size + additionalBytes:
            super().Prep(size, additionalBytes)  # which grows the bytes
            return
        if size > self.minalign:  # noqa: PLR1730 (max() costs a call)
            self.minalign = size
        self.head = head

    def Prepend(self, flags: Any, off: Any) -> None:  # noqa: N802
        self.Prep(flags.bytewidth, 0)
        self.head -= flags.bytewidth
        flags.packer_type.pack_into(self.Bytes, self.head, off)

    def PrependSlot(self, flags: Any, o: int, x: Any, d: Any) -> None:  # noqa: N802
        if x != d:
            self.Prepend(flags, x)
            self.current_vtable[o] = len(self.Bytes) - self.head

    def PrependUOffsetTRelative(self, off: int) -> None:  # noqa: N802
        self.Prep(4, 0)
        self.head -= 4
        UINT32.pack_into(self.Bytes, self.head, len(self.Bytes) - self.head - off)

    def PrependUOffsetTRelativeSlot(self, o: int, x: int, d: int) -> None:  # noqa: N802
        if x != d:
            self.PrependUOffsetTRelative(x)
            self.current_vtable[o] = len(self.Bytes) - self.head

    def vector(self, payload: bytes, length: int, alignment: int) -> int:
        """`length` elements as they lie in memory, the first at a multiple of `alignment`."""
        self.Prep(4, len(payload))
        self.Prep(alignment, len(payload))
        end = self.head
        self.head = end - len(payload) - 4
        self.Bytes[self.head + 4 : end] = payload
        UINT32.pack_into(self.Bytes, self.head, length)
        return len(self.Bytes) - self.head

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802
        """A vector of little-endian numbers, as all machines have that run this."""
        return self.vector(x.tobytes(), x.size, x.dtype.alignment)

    def CreateString(self, s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> int:  # noqa: N802
        text = s if isinstance(s, bytes) else s.encode(encoding, errors)
        return self.vector(text + b"\0", len(text), 4)

    def WriteVtable(self) -> int:  # noqa: N802
        self.Prep(4, 0)
        self.head -= 4
        table = len(self.Bytes) - self.head
        fields = self.current_vtable
        while fields and not fields[-1]:
            fields.pop()
        key = (table - self.objectEnd, *(field and table - field for field in fields))
        vtable = self.vtables.get(key)
        if vtable is None:
            width = 2 * len(key) + 2
            self.Prep(2, width - 2)
            self.head -= width
            struct.pack_into(f"<{len(key) + 1}H", self.Bytes, self.head, width, *key)
            vtable = self.vtables[key] = len(self.Bytes) - self.head
        INT32.pack_into(self.Bytes, len(self.Bytes) - table, vtable - table)
        self.current_vtable = []
        return table
