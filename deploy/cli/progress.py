"""How far long work is: the stages with the time left, the boards at work, and their words in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.run.folder import Progress
    from hil.measurement import Measurement

STARTS, DONE = "starts", "done"  # texts of a stage's first and last step
RECENT_S = 60.0  # over which a pace is taken: what a resumed run only reads again is soon out of it
SAMPLES_EVERY_S = 1.0
LINE_EVERY_S = 60.0  # in a log

Clock = Callable[[], float]


class Pace:
    """How fast a count grows, lately."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()  # (seconds, count)

    def count(self, count: float, at_s: float) -> None:
        """The count at a time; a smaller one than before begins anew."""
        samples = self._samples
        if samples and count < samples[-1][1]:
            samples.clear()
        if samples and (at_s == samples[-1][0] or (len(samples) > 1 and at_s - samples[-2][0] < SAMPLES_EVERY_S)):
            samples.pop()
        samples.append((at_s, count))
        while len(samples) > 2 and at_s - samples[1][0] >= RECENT_S:
            samples.popleft()

    @property
    def per_second(self) -> float | None:
        """None while it is not known."""
        if len(self._samples) < 2:
            return None
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_s - first_s) if last > first and last_s > first_s else None


@dataclass
class StageView:
    """A stage that has begun.

    Attributes:
        last: its last step; None: it only started.
        last_s: when that was.
        ended_s: when it was done; None: it is at work.
    """

    started_s: float
    last_s: float
    last: Progress | None = None
    ended_s: float | None = None
    pace: Pace = field(default_factory=Pace)

    def take(self, p: Progress, at_s: float) -> None:
        if self.last is not None and self.last.total != p.total:  # another part of the stage
            self.pace = Pace()
        self.pace.count(p.done, at_s)
        self.last, self.last_s = p, at_s

    def left_s(self, at_s: float) -> float | None:
        """The time left for what is counted now; None while it is not known."""
        pace = self.pace.per_second
        if self.last is None or pace is None:
            return None
        return max(0.0, (self.last.total - self.last.done) / pace - (at_s - self.last_s))


@dataclass
class BoardView:
    """A board at work: its last measurement, the models that failed, how many it measured and how fast."""

    last: Measurement
    measured: int = 0
    failed: list[str] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)

    def take(self, m: Measurement, at_s: float) -> None:
        self.last = m
        self.measured += 1
        self.pace.count(self.measured, at_s)
        if m.failure is not None and m.model not in self.failed:
            self.failed.append(m.model)

    def __str__(self) -> str:
        """imx8mp: 54 °C, 1.80 GHz, 58 models/min, 1 failed (b3_k3e6_w8), throttled"""
        at, pace = self.last.after, self.pace.per_second
        parts = [
            f"{at.temperature_c:.0f} °C" if at.temperature_c is not None else "",
            f"{at.frequency_khz / 1e6:.2f} GHz" if at.frequency_khz is not None else "",
            f"{60 * pace:.0f} models/min" if pace else "",
            f"{len(self.failed)} failed ({self.failed[-1]})" if self.failed else "",
            *self.last.flags,
        ]
        return f"{self.last.conditions.unit}: {', '.join(filter(None, parts)) or 'at work'}"


class Watch:
    """What is known of the work after each step.

    Attributes:
        names: the stages in their order; those given, and those that come.
        stages: those that have begun.
        boards: that measure, by name; empty again when a stage is done.
    """

    def __init__(self, stages: Iterable[str] = (), clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.names = list(stages)
        self.stages: dict[str, StageView] = {}
        self.boards: dict[str, BoardView] = {}

    def take(self, p: Progress) -> None:
        now = self.clock()
        if p.stage not in self.names:
            self.names.insert(self._first_open(), p.stage)
        stage = self.stages.setdefault(p.stage, StageView(now, now))
        if p.text == DONE:
            stage.ended_s = now
            self.boards.clear()
        elif p.text == STARTS:
            self.stages[p.stage] = StageView(now, now)
        else:
            stage.take(p, now)
        for m in p.measurements:
            self.boards.setdefault(m.conditions.unit, BoardView(m)).take(m, now)

    def _first_open(self) -> int:
        """The place of the first stage that is not done: what comes unannounced is a part of it."""
        done = [name in self.stages and self.stages[name].ended_s is not None for name in self.names]
        return done.index(False) if False in done else len(done)

    def line(self, name: str) -> str:
        """A stage that is at work, for a log: tables: 1 200 of 9 738, 11 min left; b3_k3e6_w8"""
        stage = self.stages[name]
        if stage.last is None:
            return f"{name}: {STARTS}"
        left_s = stage.left_s(self.clock())
        left = "" if left_s is None else f", {duration(left_s)} left"
        more = [stage.last.text, *map(str, self.boards.values())]
        return "; ".join(filter(None, [f"{name}: {counted(stage.last)}{left}", *more]))


class Log:
    """A line when a stage starts and ends, and one a minute that says how far it is."""

    def __init__(self, watch: Watch, write: Callable[[str], None]) -> None:
        self._watch, self._write, self._written_s = watch, write, watch.clock()

    def __call__(self, p: Progress) -> None:
        self._watch.take(p)
        now = self._watch.clock()
        if p.text in (STARTS, DONE):
            self._write(f"{p.stage}: {p.text}")
        elif now - self._written_s >= LINE_EVERY_S:
            self._write(self._watch.line(p.stage))
        else:
            return
        self._written_s = now


def log_of(stages: Sequence[str]) -> Log:
    """On stderr."""
    return Log(Watch(stages), lambda line: print(line, file=sys.stderr, flush=True))


def counted(p: Progress) -> str:
    """1 200 of 9 738"""
    return f"{p.done:,} of {p.total:,} {p.unit}".replace(",", " ").rstrip()


def duration(seconds: float) -> str:
    """To two places: 8 s, 11 min, 2 h 10 min, 3 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
