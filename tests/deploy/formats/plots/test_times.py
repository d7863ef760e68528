"""Axes of time: round ticks, from seconds to decades."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.formats.plots.times import time_limits, time_ticks


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ("2026-03-01T12:00:01", "2026-03-01T12:00:31", ["12:00:10", "12:00:20", "12:00:30"]),
        ("2026-03-01T11:50", "2026-03-01T14:10", ["03-01 12:00", "03-01 13:00", "03-01 14:00"]),
        ("2026-02-27", "2026-03-02", ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]),
        ("2025-12-10", "2026-03-10", ["2026-01", "2026-02", "2026-03"]),
        ("2019-06-01", "2026-06-01", ["2020", "2022", "2024", "2026"]),
    ],
)
def test_ticks_are_round(low: str, high: str, expected: list[str]) -> None:
    assert [text for _, text in time_ticks(seconds(low), seconds(high), 4)] == expected


@example(start=5e-324, length=60.0, most=3)
@given(start=st.floats(0, 4e9), length=st.floats(60, 3e9), most=st.integers(3, 12))
def test_ticks_lie_within_and_are_few_and_different(start: float, length: float, most: int) -> None:
    ticks = time_ticks(start, start + length, most)
    assert 1 <= len(ticks) <= most
    assert all(start <= at <= start + length for at, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


@given(st.lists(st.floats(0, 4e9), max_size=5))
def test_limits_hold_all(values: list[float]) -> None:
    low, high = time_limits(values)
    assert high - low >= 59 and all(low < value < high for value in values)
