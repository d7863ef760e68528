"""From a model's logits to its class map: the bilinear resizes and the arg-max that its file leaves to the CPU.

Equal to XNNPACK's kernels bit for bit: half-pixel centres, 11 bits of weight per axis, rounded once. Needs Python 3.9
and numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

WEIGHT_BITS = 11  # of one axis
CODE_BITS = 8  # a class beside its logit in 16 bits
MOST_SIZES, LONGEST_SIDE = 8, 1 << 15


def are_sizes(value: Any) -> bool:
    """Whether it is a list of [height, width]."""
    return isinstance(value, list) and len(value) <= MOST_SIZES and all(is_size(entry) for entry in value)


def is_size(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(is_side(side) for side in entry)


def is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST_SIDE


def class_map(numpy: Any, logits: Any, sizes: Sequence[Sequence[int]]) -> Any:
    """int32 (1, H, W) from int8 or uint8 logits (1, h, w, C), resized to each of `sizes` in turn; a tie is the first's.

    A size that the logits have already is no resize. A class map, of int32, stays what it is.
    """
    if logits.dtype == numpy.int32:
        return logits.reshape(logits.shape[:3])
    if not sizes or [list(size) for size in sizes] == [list(logits.shape[1:3])]:
        return logits.argmax(axis=-1).astype(numpy.int32)
    signed = logits if logits.dtype == numpy.int8 else (logits ^ 128).view(numpy.int8)
    planes = numpy.ascontiguousarray(signed[0].transpose(2, 0, 1))
    for size in sizes[:-1]:
        planes = resized(numpy, planes, size)
    return best(numpy, planes, sizes[-1])[None]


def best(numpy: Any, planes: Any, size: Sequence[int]) -> Any:
    """The largest channel (H, W) of `planes` (C, h, w) at another size.

    The bits that rounding cuts off a logit's integer hold its class: one maximum finds both.
    """
    classes = numpy.empty(size, numpy.int32)
    last = len(planes) - 1
    for rows, sums, bits in summed(numpy, planes, size):
        numpy.bitwise_and(sums, -(1 << bits), out=sums)
        numpy.bitwise_or(sums, numpy.arange(last, -1, -1, dtype=sums.dtype)[:, None], out=sums)
        numpy.bitwise_and(sums.max(axis=1), (1 << bits) - 1, out=classes[rows])
    return numpy.subtract(last, classes, out=classes)


def resized(numpy: Any, planes: Any, size: Sequence[int]) -> Any:
    """int8 (C, H, W) from (C, h, w)."""
    out = numpy.empty((len(planes), *size), numpy.int8)
    for rows, sums, bits in summed(numpy, planes, size):
        out[:, rows] = (sums >> bits).transpose(1, 0, 2)
    return out


def summed(numpy: Any, planes: Any, size: Sequence[int]) -> Iterator[tuple[slice, Any, int]]:
    """(rows of the output, their sums (rows, C, W), bits): the resized integers, but for the lowest bits to cut off.

    Few rows at once, so that all stays in the cache. Weights lose the bits that none of them has; where the sums then
    fit, as at factors 2, 4 and 8, they are of 16 bits, which a product may leave but no sum does.
    """
    top, v, rows_bits = axis(numpy, planes.shape[1], size[0])
    left, h, columns_bits = axis(numpy, planes.shape[2], size[1])
    bits, kind = 2 * WEIGHT_BITS, numpy.int32
    if rows_bits + columns_bits <= CODE_BITS and len(planes) <= 1 << CODE_BITS:
        bits, kind = CODE_BITS, numpy.int16
    h, columns_bits = h << (bits - rows_bits - columns_bits), bits - rows_bits
    source = planes.transpose(1, 0, 2).astype(kind)  # (h, C, w)
    wide = (source << columns_bits).take(left, axis=2)
    wide += slopes(numpy, source, 2).take(left, axis=2) * h.astype(kind)
    first, slope = (wide << rows_bits) + kind(1 << (bits - 1)), slopes(numpy, wide, 0)
    ends = [*(numpy.flatnonzero(numpy.diff(top)) + 1).tolist(), size[0]]
    for number, end in enumerate(ends):
        begin = ends[number - 1] if number else 0
        sums = slope[top[begin]] * v[begin:end, None, None].astype(kind)
        sums += first[top[begin]]
        yield slice(begin, end), sums, bits


def slopes(numpy: Any, values: Any, along: int) -> Any:
    """From each to the next along an axis; 0 at the last."""
    return numpy.diff(values, axis=along, append=values.take([-1], along))


def axis(numpy: Any, before: int, after: int) -> tuple[Any, Any, int]:
    """(lower index, weight of the next one, the bits that weights have) along one axis."""
    ratio = numpy.float32(before) / numpy.float32(after)
    position = (numpy.arange(after, dtype=numpy.float32) + numpy.float32(0.5)) * ratio - numpy.float32(0.5)
    position = position.clip(0, before - 1).astype(numpy.float32)
    low = position.astype(numpy.int64)
    weight = numpy.rint((position - low.astype(numpy.float32)) * numpy.float32(1 << WEIGHT_BITS)).astype(numpy.int64)
    spare = math.gcd(1 << WEIGHT_BITS, *weight.tolist()).bit_length() - 1
    return low, weight >> spare, WEIGHT_BITS - spare
