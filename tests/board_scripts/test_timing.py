"""Runs timed by a clock whose steps and whose runs are known."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board_scripts import timing


class Clock:
    """Shows whole steps of `step_ns`; a reading takes `reading_ns`, a run of the model `run_ns`."""

    def __init__(self, step_ns: int = 1, reading_ns: int = 50) -> None:
        self.step_ns, self.reading_ns, self.now_ns, self.calls = step_ns, reading_ns, 10**9 + 7, 0

    def monotonic_ns(self) -> int:
        self.now_ns += self.reading_ns
        return self.now_ns // self.step_ns * self.step_ns

    def model(self, run_ns: int) -> Callable[[], None]:
        def invoke() -> None:
            self.now_ns, self.calls = self.now_ns + run_ns, self.calls + 1

        return invoke


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Clock:
    made = Clock(*getattr(request, "param", ()))
    monkeypatch.setattr(timing, "time", made)
    return made


def measured(clock: Clock, run_ns: int, warmups: int = 5) -> tuple[timing.Batch, float]:
    """(batch, a sample of it) of a model whose runs all take as long."""
    invoke = clock.model(run_ns)
    warm_ns = [timing.timed(invoke) for _ in range(warmups)]
    batch = timing.batch_of(invoke, warm_ns, timing.clock_step_ns())
    return batch, timing.sample_us(invoke, batch.calls)


@pytest.mark.parametrize("warmups", [0, 1, 5])
@pytest.mark.parametrize("clock", [(1, 50), (52, 300), (125, 500), (1000, 90)], indirect=True)
def test_one_percent_of_eleven_microseconds_is_one_percent(clock: Clock, warmups: int) -> None:
    (base, base_us), (head, head_us) = (measured(clock, run_ns, warmups) for run_ns in (11_000, 11_110))
    assert base.calls > 1 < head.calls
    assert base_us == pytest.approx(11.0, rel=0.006) and head_us / base_us == pytest.approx(1.01, abs=0.006)


def test_a_sample_lasts_100_us(clock: Clock) -> None:
    for run_ns, calls in ((11_000, 10), (99_000, 2), (1000, 100)):
        assert measured(clock, run_ns)[0].calls == calls


def test_long_runs_are_timed_one_by_one_and_no_more_often_than_asked(clock: Clock) -> None:
    batch, us = measured(clock, 5_000_000)
    assert batch == (1, 0, 0) and us == pytest.approx(5000, rel=1e-4) and clock.calls == 6
    batch, us = measured(clock, 5_000_000, warmups=0)  # then one has to be tried
    assert (batch.calls, batch.tried) == (1, 1) and clock.calls == 8


def test_runs_that_were_tried_are_counted(clock: Clock) -> None:
    batch, _ = measured(clock, 11_000)
    assert batch.tried == clock.calls - 5 - batch.calls
    assert batch.tried_ns == pytest.approx(11_000 * batch.tried, rel=0.01)


@pytest.mark.parametrize("clock", [(4_000_000, 100)], indirect=True)
def test_a_clock_without_fine_timers_ends_all_the_same(clock: Clock) -> None:
    assert timing.clock_step_ns() == 4_000_000
    batch, us = measured(clock, 11_000)
    assert batch.calls * 11_000 < 30_000_000 and us == pytest.approx(11.0, rel=0.5)


def test_a_clock_that_stands_still_ends_all_the_same(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MANY_READINGS", 10)
    monkeypatch.setattr(clock, "monotonic_ns", lambda: 0)
    batch, us = measured(clock, 11_000)
    assert batch.calls == timing.MOST_CALLS and us == 0


def test_the_step_of_this_machines_clock() -> None:
    assert 1 <= timing.clock_step_ns() < 100_000


def is_steady_slowly(latencies_ns: Sequence[int]) -> bool:
    if len(latencies_ns) < 6:
        return False
    before, last = statistics.median(latencies_ns[-6:-3]), statistics.median(latencies_ns[-3:])
    return abs(last - before) <= 0.02 * before + 1000


@given(st.lists(st.integers(0, 300_000) | st.integers(0, 10**10), max_size=12))
def test_steady_is_what_it_says(latencies_ns: list[int]) -> None:
    assert timing.is_steady(latencies_ns) == is_steady_slowly(latencies_ns)


@pytest.mark.parametrize(
    ("scripted_us", "least", "most", "wanted"),
    [
        ([100] * 20, 5, 20, (6, True)),
        ([100] * 20, 8, 20, (8, True)),
        ([100] * 20, 2, 2, (2, False)),
        ([900, 500, 300, 200, 150, 120, 100, 100, 100, 100, 100, 100], 2, 20, (11, True)),
        (list(range(1000, 100, -30)), 3, 12, (12, False)),
        ([100] * 20, 0, 0, (0, False)),
        ([100] * 20, 7, 3, (7, True)),
    ],
)
def test_the_warm_up_ends_when_runs_are_steady(
    monkeypatch: pytest.MonkeyPatch, scripted_us: list[int], least: int, most: int, wanted: tuple[int, bool]
) -> None:
    remaining = iter(scripted_us)
    monkeypatch.setattr(timing, "timed", lambda call: 1000 * next(remaining))
    found = timing.warm_up({"warmup_runs": least, "warmup_runs_most": most}, lambda: None)
    assert found == ([1000 * us for us in scripted_us[: wanted[0]]], wanted[1])
