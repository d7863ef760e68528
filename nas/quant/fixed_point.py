"""gemmlowp's fixed-point arithmetic, on which TFLite's reference kernels rest; int64 arrays hold its int32 values.

A number with b integer bits is its raw integer times 2^(b - 31). Source: gemmlowp's fixedpoint/fixedpoint.h and
TFLite's kernels/internal/common.h; the constants are theirs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
INT32 = np.iinfo(np.int32)
FRACTION_BITS = 26  # of the exponential's argument: 5 integer bits
ONE = np.int64(INT32.max)  # with no integer bits
EXPONENTIALS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-2^k) for k = -2 to 4, no integer bits."""


def multiplier_of(scale: float) -> tuple[int, int]:
    """A positive real as (31-bit integer, exponent): scale = q * 2^(exponent - 31)."""
    fraction, exponent = math.frexp(scale)
    q = math.floor(fraction * 2**31 + 0.5)
    if q == 2**31:
        q, exponent = q // 2, exponent + 1
    return (0, 0) if exponent < -31 else (q, exponent)


def truncated(values: Int64, shift: int) -> Int64:
    """values / 2^shift as C divides: towards zero."""
    magnitude: Int64 = np.abs(values) >> shift
    return magnitude * np.sign(values)


def doubling_high_multiply(a: Int64, b: int | Int64) -> Int64:
    """The upper half of 2 a b, rounded: the product of two fixed-point numbers, their integer bits added."""
    product = a * np.asarray(b, np.int64)
    return truncated(product + np.where(product >= 0, 1 << 30, 1 - (1 << 30)), 31)


def rounding_shift(x: Int64, shift: int | Int64) -> Int64:
    """x / 2^shift, ties away from zero."""
    mask = (np.int64(1) << np.asarray(shift, np.int64)) - 1
    result: Int64 = (x >> shift) + ((x & mask) > (mask >> 1) + (x < 0))
    return result


def saturating_shift(x: Int64, shift: int) -> Int64:
    """x * 2^shift, clamped to int32."""
    result: Int64 = np.clip(x << shift, INT32.min, INT32.max)
    return result


def rescale(x: Int64, q: int | Int64, exponent: int | Int64) -> Int64:
    """x * q * 2^(exponent - 31): a saturating rounding doubling high multiply, then a rounding shift."""
    exponent = np.asarray(exponent, np.int64)
    high = doubling_high_multiply(x * (np.int64(1) << np.maximum(exponent, 0)), q)
    return rounding_shift(high, np.maximum(-exponent, 0))


def rescale_once(x: Int64, q: int | Int64, exponent: int | Int64) -> Int64:
    """x * q * 2^(exponent - 31), rounded once, ties up."""
    shift = 31 - np.asarray(exponent, np.int64)
    result: Int64 = (x * np.asarray(q, np.int64) + (np.int64(1) << (shift - 1))) >> shift
    return result


def exponential(x: Int64) -> Int64:
    """exp(x) with no integer bits, for x <= 0 with 5 of them."""
    quarter = np.int64(1 << (FRACTION_BITS - 2))
    remainder = (x & (quarter - 1)) - quarter  # in [-1/4, 0)
    t = (remainder << 5) + (1 << 28)  # the difference from -1/8, no integer bits
    t2 = doubling_high_multiply(t, t)
    t3, t4 = doubling_high_multiply(t2, t), doubling_high_multiply(t2, t2)
    third = doubling_high_multiply(rounding_shift(t4, 2) + t3, 715827883)
    series = t + rounding_shift(third + t2, 1)
    result = 1895147668 + doubling_high_multiply(np.full_like(x, 1895147668), series)  # exp(-1/8) (1 + ...)
    for bit, factor in enumerate(EXPONENTIALS, start=FRACTION_BITS - 2):
        result = np.where((remainder - x) >> bit & 1, doubling_high_multiply(result, factor), result)
    return np.where(x == 0, ONE, result)


def reciprocal(x: Int64, integer_bits: int) -> tuple[Int64, Int64]:
    """1 / x for positive x: a number with no integer bits, and by how much to shift it right, an array as `x`."""
    headroom = 32 - np.frexp(x.astype(np.float64))[1].astype(np.int64)  # leading zeros of 32 bits
    half = (x << headroom) - (1 << 31)  # x scaled to [1, 2), less 1
    half = truncated(half + ONE + 1, 1)  # the rounded mean with 1: half the denominator
    one = np.int64(1 << 29)  # with 2 integer bits, as the Newton iterate
    y = 1515870810 + doubling_high_multiply(half, -1010580540)  # 48/17 - 32/17 half
    for _ in range(3):
        y = y + saturating_shift(doubling_high_multiply(y, one - doubling_high_multiply(half, y)), 2)
    return saturating_shift(y, 1), integer_bits - headroom
