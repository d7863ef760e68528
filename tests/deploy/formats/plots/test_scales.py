"""Axes: ranges that show everything, and round ticks within them."""

from __future__ import annotations

import math

import pytest

from deploy.formats.plots.scales import Scale, limits


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (1.19, 1.36, ["1.20", "1.25", "1.30", "1.35"]),
        (-3, 3, ["-3", "-2", "-1", "0", "1", "2", "3"]),
        (0, 0.001, ["0.0000", "0.0002", "0.0004", "0.0006", "0.0008", "0.0010"]),
    ],
)
def test_linear_ticks_are_round(low, high, expected):
    assert [text for _, text in Scale(low, high, 0, 1).ticks()] == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1, 100, ["1", "2", "5", "10", "20", "50", "100"]),
        (1.2, 13, ["2", "5", "10"]),
        (0.9, 1.1, ["0.90", "0.95", "1.00", "1.05", "1.10"]),
        (1e-6, 1e-2, ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²"]),
    ],
)
def test_logarithmic_ticks_are_round(low, high, expected):
    assert [text for _, text in Scale(low, high, 0, 1, log=True).ticks()] == expected


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("magnitude", [1e-9, 1e-3, 0.7, 1.0, 42.0, 1e7])
@pytest.mark.parametrize("ratio", [1.0001, 1.5, 7.0, 3e4, 1e11])
def test_any_range_has_a_few_distinct_ticks_within(log, magnitude, ratio):
    low, high = limits([magnitude, magnitude * ratio], log)
    ticks = Scale(low, high, 0, 1, log).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(low * (1 - 1e-9) - 1e-12 <= v <= high * (1 + 1e-9) for v, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


def test_limits_leave_room_and_survive_what_has_none():
    low, high = limits([1.0, 2.0], log=False)
    assert low < 1 and high > 2
    assert limits([3.0, 3.0], log=False)[0] < 3 < limits([3.0, 3.0], log=False)[1]
    assert limits([], log=False) == (0, 1) and limits([0.0, -1.0, math.inf], log=True) == (1, 10)
    assert limits([2.0, 4.0], log=False, zero=True)[0] == 0
    low, high = limits([math.nan, 1.0, 10.0], log=True)
    assert 0 < low < 1 and high > 10


def test_values_map_to_pixels():
    assert Scale(0, 10, 100, 200).at(5) == 150
    assert Scale(1, 100, 300, 100, log=True).at(10) == pytest.approx(200)


def test_small_numbers_have_no_zeros_to_read():
    assert [text for _, text in Scale(0.0, 4.2e-4, 0, 100).ticks(5)] == ["0", "1e-4", "2e-4", "3e-4", "4e-4"]
