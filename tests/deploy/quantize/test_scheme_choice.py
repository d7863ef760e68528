"""The scheme that `auto` takes: the fastest within the metric's drop, of the equally fast the most exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.quantize.schemes import AS_FAST, OPTIONS, TriedScheme, choose
from hil.errors import CheckFailed, UsageError
from nas.estimate import Estimate

CHANNEL = TriedScheme("channel int8", -30.0, 100, off_share=1.0)
TENSOR = TriedScheme("tensor int8", -18.0, 100, off_share=0.02)
EQUALIZED = TriedScheme("tensor int8, equalized", -24.0, 100, off_share=0.02)


def with_(one: TriedScheme, *, metric: float | None = None, us: float | None = None) -> TriedScheme:
    return replace(
        one,
        metric=None if metric is None else Estimate.exact(metric),
        latency_us=None if us is None else Estimate.exact(us),
    )


def test_names_differ() -> None:
    names = [str(option) for option in OPTIONS]
    assert len(set(names)) == len(names) == 12 and "tensor uint8, equalized, biases corrected" in names


def test_where_it_should_run_decides_then_noise() -> None:
    assert choose([CHANNEL, TENSOR, EQUALIZED]) is EQUALIZED
    alike = [replace(one, off_share=None) for one in (CHANNEL, TENSOR, EQUALIZED)]
    assert choose(alike).option == CHANNEL.option


def test_the_board_has_the_last_word_on_speed() -> None:
    on_board = [with_(CHANNEL, us=900.0), with_(TENSOR, us=1000.0), with_(EQUALIZED, us=1000.0)]
    assert choose(on_board) is on_board[0]
    nearly = [with_(CHANNEL, us=1020.0), with_(TENSOR, us=1000.0), with_(EQUALIZED, us=1001.0)]
    assert choose(nearly) is nearly[0], "no slower than rounds differ by, and the most exact"


def test_the_fastest_within_the_drop() -> None:
    judged = [with_(CHANNEL, metric=70.0, us=3000.0), with_(TENSOR, metric=61.0, us=1000.0)]
    judged.append(with_(EQUALIZED, metric=69.6, us=1010.0))
    assert choose(judged, 0.5) is judged[2] and choose(judged, 0.1) is judged[0] and choose(judged, 20) is judged[2]
    with pytest.raises(UsageError, match=r"--metric-drop 0.5: there is no metric without labelled data"):
        choose([CHANNEL, TENSOR], 0.5)


def test_nothing_left_names_each_reason() -> None:
    with pytest.raises(CheckFailed, match="channel int8: too wide; tensor int8: too narrow"):
        choose([TriedScheme("channel int8", failure="too wide"), TriedScheme("tensor int8", failure="too narrow")])


@given(
    st.lists(
        st.tuples(st.floats(-60, 0), st.floats(0, 100), st.floats(1, 1e6), st.booleans()), min_size=1, max_size=12
    ),
    st.floats(0, 10),
)
def test_none_within_the_drop_is_clearly_faster(found, drop) -> None:
    tried = [
        with_(TriedScheme(str(i), noise, failure="no" if failed else None), metric=metric, us=us)
        for i, (noise, metric, us, failed) in enumerate(found)
    ]
    able = [one for one in tried if one.failure is None]
    if not able:
        with pytest.raises(CheckFailed):
            choose(tried, drop)
        return
    one, best = choose(tried, drop), max(other.metric.value for other in able)
    assert one.metric.value >= best - drop
    within = [other for other in able if other.metric.value >= best - drop]
    assert one.latency_us.value <= AS_FAST * min(other.latency_us.value for other in within)
    alike = [other for other in within if other.latency_us.value <= AS_FAST * min(w.latency_us.value for w in within)]
    assert one.metric.value == max(other.metric.value for other in alike)
