"""From values to pixels: linear and logarithmic scales with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from deploy.formats.plots.times import time_ticks

PADDING = 0.06  # of the range, on either side
MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(map(float, range(1, 10))))
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """A range of values, [low, high], on the pixels from `start` to `end` (which may be the smaller one).

    `time`: the values are seconds since 1970.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    time: bool = False

    def at(self, value: float) -> float:
        """The value's pixel."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, most: int = 7) -> list[tuple[float, str]]:
        """Round values within the range with their text, at most `most`."""
        if self.time:
            return time_ticks(self.low, self.high, most)
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)


def drawable(value: float, log: bool) -> bool:
    """Does the value have a place on such an axis?"""
    return math.isfinite(value) and (value > 0 or not log)


def limits(values: Iterable[float], log: bool, zero: bool = False) -> tuple[float, float]:
    """The range of an axis that shows all `values`, with some room; [0, 1] or [1, 10] where there are none."""
    shown = [v for v in values if drawable(v, log)]
    if not shown:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(shown), max(shown)
    if log:
        low, high = (low / 1.5, high * 1.5) if low == high else (low, high)
        room = (high / low) ** PADDING
        return low / room, high * room
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = low - (abs(low) / 10 or 0.5), high + (abs(high) / 10 or 0.5)
    room = (high - low) * PADDING
    return (low if zero and low == 0 else low - room), high + room


def _linear_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s for m in (1, 2, 5, 10, 20) if math.floor(high / (s := m * power)) - math.ceil(low / s) + 1 <= most)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    if max(abs(low), abs(high)) < 1e-3 or step >= 1e6:
        digits = max(0, math.floor(math.log10(max(abs(low), abs(high)) / step)))
        return [(i * step, _exponent_text(i * step, digits + 1)) for i in places]
    return [(i * step, f"{i * step + 0.0:.{decimals}f}") for i in places]


def _log_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for mantissas in MANTISSAS:
        values = [m * 10.0**power for power in range(first, last + 1) for m in mantissas]
        within = [v for v in values if low <= v <= high]
        if len(within) > most:
            break
        found = within
    if len(found) < 3 and high / low < 20:
        return _linear_ticks(low, high, most)
    every = math.ceil(len(within) / most) if not found else 1  # too many decades for a tick at each
    shown = (found or within)[::every]
    plain = shown[0] >= 1e-3 and shown[-1] < 1e5
    return [(v, f"{v:.10g}" if plain else _power_text(v)) for v in shown]


def _exponent_text(value: float, digits: int) -> str:
    """4e-4 for 0.0004: what 4.0e-04 says."""
    mantissa, power = f"{value:.{digits}e}".split("e")
    return f"{float(mantissa):g}e{int(power)}" if value else "0"


def _power_text(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    mantissa = round(value / 10.0**power)
    superscript = str(power).translate(SUPERSCRIPTS)
    return f"10{superscript}" if mantissa == 1 else f"{mantissa}·10{superscript}"
