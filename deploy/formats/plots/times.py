"""Axes of time: values are seconds since 1970, ticks are round times in UTC."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
STEPS_S = (1, 2, 5, 10, 30, *(MINUTE_S * n for n in (1, 2, 5, 10, 30)), *(HOUR_S * n for n in (1, 2, 3, 6, 12)),
           *(DAY_S * n for n in (1, 2, 7, 14)))  # fmt: skip
STEPS_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
SHORTEST_S = 60.0  # of a range
ROOM = 0.06  # of the range, on either side


def time_limits(values: Iterable[float]) -> tuple[float, float]:
    """The range of an axis that shows all `values`, with some room."""
    shown = list(values) or [0.0]
    low, high = min(shown), max(shown)
    room = max(ROOM * (high - low), SHORTEST_S / 2)
    return low - room, high + room


def time_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """At most `most` round times within the range, with their text."""
    for step in STEPS_S:
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < most:
            form = "%H:%M:%S" if step < MINUTE_S else "%m-%d %H:%M" if step < DAY_S else "%Y-%m-%d"
            within = [n * step for n in range(first, last + 1) if low <= n * step <= high]  # a quotient may be rounded
            return [(float(at), _moment(at).strftime(form)) for at in within]
    for months in STEPS_MONTHS:
        found = list(_firsts(low, high, months))
        if len(found) <= most:
            break
    form = "%Y-%m" if months < 12 else "%Y"
    return [(at.timestamp(), at.strftime(form)) for at in found[:: math.ceil(len(found) / most)]]


def _firsts(low: float, high: float, months: int) -> Iterator[datetime]:
    """The first days of every so many months."""
    month = _moment(low).year * 12 // months * months
    while (at := datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)).timestamp() <= high:
        if at.timestamp() >= low:
            yield at
        month += months


def _moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
