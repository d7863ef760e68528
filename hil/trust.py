"""Flags of latencies that are less reliable, kept in the record beside the samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hil.measurement import WHOLE_MICROSECONDS_NS, Readings

FLAGS = {
    "unsteady": "the warm-up ended before two windows of runs agreed",
    "drift": "the last third of the runs has another median than the first",
    "throttled": "the clock fell during the runs",
    "neighbours": "other processes were at work during the runs",
    "oversubscribed": "the model ran on more threads than there were cores for it",
    "coarse": "a step of the clock is more than 1 % of what it timed",
    "averaged": "the program reports means only, not single runs",
    "unchecked": "no expected output was given, so the output may be wrong",
    "spread": "outputs differ by more than the board's tolerance, as XNNPACK and the reference kernels do on the file",
}
"""What each flag means."""

ADVICE = {
    "unsteady": "--warmup-runs allows more",
    "drift": "it heated up, or others came or went: measure again",
    "throttled": "cool the board, or set `max_temperature_c` in boards.toml",
    "neighbours": "end them (`hilnas board check NAME` shows the load), then measure again",
    "unchecked": "put NAME.input.bin and NAME.expected.bin beside the model",
    "spread": "random weights magnify rounding; compare accuracies (`hilnas evaluate`) of trained ones",
}
"""What to do about it, where that does not depend on more."""

DRIFT = 0.05
THROTTLED = 0.95
NEIGHBOURS = 0.10
COARSE = 0.01


@dataclass(frozen=True)
class Timer:
    """What timed the samples: `calls` of the model each, by a clock whose steps are `step_ns`."""

    calls: int = 1
    step_ns: int = WHOLE_MICROSECONDS_NS

    @property
    def resolution_us(self) -> float:
        """The smallest difference between two samples."""
        return self.step_ns / self.calls / 1000

    def too_coarse(self, latencies_us: Sequence[float]) -> bool:
        return bool(latencies_us) and self.resolution_us > COARSE * statistics.median(latencies_us)


def flags(
    latencies_us: Sequence[float],
    *,
    steady: bool,
    before: Readings,
    after: Readings,
    others_busy: float,
    checked: bool,
    as_kernels_differ: bool = False,
    averaged: bool = False,
    oversubscribed: bool = False,
    timer: Timer = Timer(),
) -> tuple[str, ...]:
    """The keys of `FLAGS` that hold for one round's samples."""
    found = []
    if not steady:
        found.append("unsteady")
    if drifts(latencies_us, timer.resolution_us):
        found.append("drift")
    if before.frequency_khz and after.frequency_khz and after.frequency_khz < THROTTLED * before.frequency_khz:
        found.append("throttled")
    if others_busy > NEIGHBOURS:
        found.append("neighbours")
    if oversubscribed:
        found.append("oversubscribed")
    if timer.too_coarse(latencies_us):
        found.append("coarse")
    if averaged:
        found.append("averaged")
    if not checked:
        found.append("unchecked")
    if as_kernels_differ:
        found.append("spread")
    return tuple(found)


def drifts(latencies_us: Sequence[float], resolution_us: float) -> bool:
    """Whether the medians of the first and the last third differ by more than 5 % and by more than the clock resolves;
    never below 9 runs.
    """
    third = len(latencies_us) // 3
    if third < 3:
        return False
    first, last = statistics.median(latencies_us[:third]), statistics.median(latencies_us[-third:])
    return abs(last - first) > max(DRIFT * first, resolution_us)
