"""Flags of latencies that are less reliable, kept in the record beside the samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from hil.measurement import Readings

FLAGS = {
    "unsteady": "the warm-up ended before two windows of runs agreed",
    "drift": "the last third of the runs has another median than the first",
    "throttled": "the clock fell during the runs",
    "neighbours": "other processes were at work during the runs",
    "averaged": "the program reports means only, not single runs",
    "unchecked": "no expected output was given, so the output may be wrong",
}
"""What each flag means."""

DRIFT = 0.05
THROTTLED = 0.95
NEIGHBOURS = 0.10


def flags(
    latencies_us: Sequence[int],
    *,
    steady: bool,
    before: Readings,
    after: Readings,
    others_busy: float,
    checked: bool,
    averaged: bool = False,
) -> tuple[str, ...]:
    """The keys of `FLAGS` that hold for one round's samples."""
    found = []
    if not steady:
        found.append("unsteady")
    if drifts(latencies_us):
        found.append("drift")
    if before.frequency_khz and after.frequency_khz and after.frequency_khz < THROTTLED * before.frequency_khz:
        found.append("throttled")
    if others_busy > NEIGHBOURS:
        found.append("neighbours")
    if averaged:
        found.append("averaged")
    if not checked:
        found.append("unchecked")
    return tuple(found)


def drifts(latencies_us: Sequence[int]) -> bool:
    """Whether the medians of the first and the last third differ by more than 5 % and 1 us; never below 9 runs."""
    third = len(latencies_us) // 3
    if third < 3:
        return False
    first, last = statistics.median(latencies_us[:third]), statistics.median(latencies_us[-third:])
    return abs(last - first) > max(DRIFT * first, 1.0)
