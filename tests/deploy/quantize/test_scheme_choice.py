"""The scheme that `auto` takes: the fastest within the metric's drop, of the equally fast the most exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.quantize.scheme_option import OPTIONS, SchemeOption
from deploy.quantize.schemes import AS_FAST, TriedScheme, choose
from hil.errors import CheckFailed, UsageError
from nas.estimate import Estimate
from nas.quant.scheme import Scheme

CHANNEL = TriedScheme("channel int8", -30.0, 100, off_share=1.0)
TENSOR = TriedScheme("tensor int8", -18.0, 100, off_share=0.02)
EQUALIZED = TriedScheme("tensor int8, equalized", -24.0, 100, off_share=0.02)


def with_figures(
    one: TriedScheme, *, change: float | None = None, half: float = 0.2, us: float | None = None
) -> TriedScheme:
    points = None if change is None else Estimate(change, half / 2, change - half, change + half, 100, "resampled")
    return replace(one, change=points, latency_us=None if us is None else Estimate.exact(us))


def test_every_option_has_its_name() -> None:
    names = [str(option) for option in OPTIONS]
    assert len(set(names)) == len(names) and "tensor uint8, equalized, biases corrected" in names
    options = Scheme(rounding="adaptive", observer="percentile 99.9")
    text = "channel int8, adaptive rounding below 8 bits, ranges by percentile 99.9, 2 in float"
    assert str(SchemeOption(OPTIONS[0].scheme, options, ("a", "b"))) == text


def test_where_it_should_run_decides_then_noise() -> None:
    assert choose([CHANNEL, TENSOR, EQUALIZED]) is EQUALIZED
    alike = [replace(one, off_share=None) for one in (CHANNEL, TENSOR, EQUALIZED)]
    assert choose(alike).option == CHANNEL.option


def test_the_board_has_the_last_word_on_speed() -> None:
    on_board = [with_figures(CHANNEL, us=900.0), with_figures(TENSOR, us=1000.0), with_figures(EQUALIZED, us=1000.0)]
    assert choose(on_board) is on_board[0]
    nearly = [with_figures(CHANNEL, us=1020.0), with_figures(TENSOR, us=1000.0), with_figures(EQUALIZED, us=1001.0)]
    assert choose(nearly) is nearly[0], "no slower than rounds differ by, and the most exact"


def test_the_fastest_within_the_drop() -> None:
    tried = [with_figures(CHANNEL, change=0.0, us=3000.0), with_figures(TENSOR, change=-9.0, us=1000.0)]
    tried.append(with_figures(EQUALIZED, change=-0.4, us=1010.0))
    assert choose(tried, 0.5) is tried[2] and choose(tried, 0.1) is tried[0] and choose(tried, 20) is tried[2]
    with pytest.raises(CheckFailed, match=r"'tensor int8' comes nearest, 9.00 below it"):
        choose(tried[1:2], 0.5)
    with pytest.raises(UsageError, match=r"--metric-drop 0.5: there is no metric without labelled data"):
        choose([CHANNEL, TENSOR], 0.5)


def test_a_metric_that_images_cannot_tell_apart_leaves_it_to_the_noise() -> None:
    noisier, exact = with_figures(TENSOR, change=0.3, half=1.0), with_figures(EQUALIZED, change=-0.3, half=1.0)
    assert choose([noisier, exact]) is exact
    assert choose([noisier, with_figures(EQUALIZED, change=-3.0, half=1.0)]) is noisier


def test_nothing_left_names_each_reason() -> None:
    with pytest.raises(CheckFailed, match="channel int8: too wide; tensor int8: too narrow"):
        choose([TriedScheme("channel int8", failure="too wide"), TriedScheme("tensor int8", failure="too narrow")])


@given(
    st.lists(
        st.tuples(st.floats(-60, 0), st.floats(-50, 5), st.floats(1, 1e6), st.booleans()), min_size=1, max_size=12
    ),
    st.floats(0, 60),
)
def test_none_within_the_drop_is_clearly_faster(found, drop) -> None:
    tried = [
        with_figures(TriedScheme(str(i), noise, failure="no" if failed else None), change=change, us=us)
        for i, (noise, change, us, failed) in enumerate(found)
    ]
    within = [one for one in tried if one.failure is None and one.change.value >= -drop]
    if not within:
        with pytest.raises(CheckFailed):
            choose(tried, drop)
        return
    one, limit = choose(tried, drop), AS_FAST * min(other.latency_us.value for other in within)
    assert one in within and one.latency_us.value <= limit
    as_good = [w for w in within if w.latency_us.value <= limit and w.change.high >= one.change.high]
    assert one.noise_db <= min(w.noise_db for w in as_good)
