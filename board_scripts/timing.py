"""How long a model's runs take: each by itself or, where one is too short for the clock, many together.

Needs Python 3.9 and its standard library.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

STEADY_WINDOW = 3
STEADY_WITHIN = 0.02
STEADY_SLACK_NS = 1000  # a single short run varies by more than 2 %, a sample of many does not

SHORT_NS = 100_000  # runs below it are timed together, as many as take that long
CLOCK_STEPS = 200  # such a sample is no shorter than these steps of the clock, within reason
LONGEST_SAMPLE_NS = 10_000_000
MOST_CALLS = 100_000
FEW_READINGS, MANY_READINGS = 64, 1_000_000


def clock_step_ns() -> int:
    """The smallest difference between two readings of the clock: no duration is known better."""
    readings = [time.monotonic_ns() for _ in range(FEW_READINGS)]
    steps = {readings[i + 1] - readings[i] for i in range(FEW_READINGS - 1)} - {0}
    if steps:
        return min(steps)
    for _ in range(MANY_READINGS):  # a kernel without fine timers moves its clock every 1 to 10 ms
        now = time.monotonic_ns()
        if now > readings[-1]:
            return now - readings[-1]
    return LONGEST_SAMPLE_NS


def timed(call: Callable[[], object], calls: int = 1) -> int:
    """Nanoseconds of that many calls together."""
    begin = time.monotonic_ns()
    for _ in repeat(None, calls):
        call()
    return time.monotonic_ns() - begin


def is_steady(latencies_ns: Sequence[int]) -> bool:
    """The medians of the last three runs and of the three before differ by at most 2 % and 1 us."""
    if len(latencies_ns) < 2 * STEADY_WINDOW:
        return False
    before, last = (
        sorted(part)[STEADY_WINDOW // 2]
        for part in (latencies_ns[-2 * STEADY_WINDOW : -STEADY_WINDOW], latencies_ns[-STEADY_WINDOW:])
    )
    return abs(last - before) <= STEADY_WITHIN * before + STEADY_SLACK_NS


def warm_up(job: dict[str, Any], invoke: Callable[[], object]) -> tuple[list[int], bool]:
    """Runs until steady, at least `warmup_runs` and at most `warmup_runs_most`: (nanoseconds of each, steady)."""
    least = job["warmup_runs"]
    most = max(least, job.get("warmup_runs_most", least))
    latencies_ns: list[int] = []
    while len(latencies_ns) < most and (len(latencies_ns) < least or not is_steady(latencies_ns)):
        latencies_ns.append(timed(invoke))
    return latencies_ns, is_steady(latencies_ns)


class Batch(NamedTuple):
    """The calls that one sample takes, and the ones (their number, nanoseconds) that finding this out took."""

    calls: int
    tried: int
    tried_ns: int


def batch_of(invoke: Callable[[], object], warm_ns: Sequence[int], step_ns: int) -> Batch:
    """One call per sample for a run of 100 us or more; else as many as take that long, or 200 steps of the clock.

    `warm_ns` are the runs of the warm-up; where there was none, one run is tried.
    """
    tried, tried_ns = (0, 0) if warm_ns else (1, timed(invoke))
    run_ns = min(warm_ns[-STEADY_WINDOW:], default=tried_ns)
    if run_ns >= SHORT_NS:
        return Batch(1, tried, tried_ns)
    wanted_ns = max(SHORT_NS, min(CLOCK_STEPS * step_ns, LONGEST_SAMPLE_NS))
    calls = math.ceil(wanted_ns / max(run_ns, step_ns))
    while True:
        took_ns = timed(invoke, calls)
        tried, tried_ns = tried + calls, tried_ns + took_ns
        if took_ns >= wanted_ns or calls == MOST_CALLS:
            return Batch(calls, tried, tried_ns)
        more = math.ceil(calls * wanted_ns / took_ns) if took_ns > step_ns else 2 * calls
        calls = min(max(calls + 1, more), MOST_CALLS)


def sample_us(invoke: Callable[[], object], calls: int) -> float:
    """The mean of that many calls, microseconds, to the nanosecond."""
    return round(timed(invoke, calls) / calls / 1000, 3)
