"""What other processes had of the cores while a model ran, and how many cores the model may use.

Needs Python 3.9 and its standard library.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import NamedTuple

TICKS_TELL = 20  # of all cores together, 10 ms each; fewer do not show a share of 10 %


class Counters(NamedTuple):
    """The kernel's counters at one moment.

    Attributes:
        busy: clock ticks of all cores together since boot that were not idle.
        every: all of them.
        own: ticks of this process and of the programs that it waited for.
        waited_ns: how long this process's main thread was ready and had no core.
        ready: other processes and threads that ran or were ready.
        at_ns: the monotonic clock.
    """

    busy: int
    every: int
    own: float
    waited_ns: int
    ready: int
    at_ns: int


def counters(proc: str, threads: int = 1) -> Counters:
    """With `threads` of our own, which are not counted as others. What cannot be read is 0."""
    return Counters(*cpu_ticks(proc), own_ticks(), waited_ns(proc), ready(proc, threads), time.monotonic_ns())


def others_busy(since: Counters, end: Counters, *, crowded: bool = False) -> float:
    """The share of the cores' time that other processes had in between, 0 to 1.

    Over a time too short for the kernel's ticks, the share of the cores that others were ready to use when it began
    and when it ended. No less than the share of it that we waited for a core, unless we are `crowded`: of more threads
    than cores some wait for each other.
    """
    ticks = end.every - since.every
    if ticks >= TICKS_TELL:
        others = (end.busy - since.busy - (end.own - since.own)) / ticks
    else:
        others = min(since.ready, end.ready) / (os.cpu_count() or 1)
    if not crowded:
        others = max(others, (end.waited_ns - since.waited_ns) / max(end.at_ns - since.at_ns, 1))
    return round(min(max(others, 0.0), 1.0), 3)


def cpu_ticks(proc: str) -> tuple[int, int]:
    """(busy, all) clock ticks of all cores together since boot; zeros where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"{proc}/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]  # up to steal
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    return 0, 0


def own_ticks() -> float:
    """Ours, and those of programs that we waited for."""
    return sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")


def waited_ns(proc: str) -> int:
    """Since our start, by the scheduler's own account; 0 where it keeps none."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"{proc}/self/schedstat", encoding="ascii") as file:
        return int(file.read().split()[1])
    return 0


def ready(proc: str, threads: int) -> int:
    """Processes and threads on the whole board that run or are ready, but for as many of ours."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"{proc}/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith("procs_running"):
                return max(int(line.split()[1]) - threads, 0)
    return 0


def cores(sysfs: str) -> int:
    """That we may use: those of our affinity, or fewer where a control group (a container's) has a quota of time."""
    group, count = f"{sysfs}/fs/cgroup", len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError, ArithmeticError):
        quota, period = text(f"{group}/cpu.max").split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    with contextlib.suppress(OSError, ValueError, ArithmeticError):  # control groups of the first version
        quota_us, period_us = (int(text(f"{group}/cpu/cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if quota_us > 0:  # -1: no quota
            count = min(count, math.ceil(quota_us / period_us))
    return max(count, 1)


def text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
