from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings

from hil.errors import Incomparable, UsageError
from hil.measurement import Measurement
from hil.results import Wanted, moment, results
from hil.stats import summarize
from tests.hil.measured_stores import stores
from tests.hil.stored_measurements import FAILED, ONE, OTHER


@given(stores())
@settings(max_examples=150, deadline=None)
def test_each_model_and_conditions_by_the_latest_attempt_at_each_round(measured: list[Measurement]) -> None:
    last = {m.job_id: m for m in sorted(measured, key=lambda m: m.attempt)}
    places = {(m.conditions.key(), m.model) for m in measured}
    found = {(r.conditions.key(), r.model): r for r in results(measured, Wanted())}
    assert set(found) == places
    for key, model in places:
        rounds = [m for m in last.values() if (m.conditions.key(), m.model) == (key, model)]
        result = found[key, model]
        assert sorted(m.job_id for m in result.measurements) == sorted(m.job_id for m in rounds)
        if any(m.status == "failed" for m in rounds):
            assert result.latency is None and result.reason in {m.failure.reason for m in rounds if m.failure}
        else:
            assert result.latency == summarize(sorted(us for m in rounds for us in m.latencies_us))
            assert result.reason is None


def test_what_is_wanted() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    bad = replace(FAILED, model="bad", model_sha256="b" * 64)
    late = replace(ONE, job_id="l", model="late", model_sha256="c" * 64, started_at=(day + timedelta(1)).isoformat())
    npu = replace(ONE, job_id="n", conditions=OTHER)
    half = replace(bad, job_id="h", status="ok", failure=None, latencies_us=(1,), round=1)

    def names(wanted: Wanted) -> list[str]:
        return [f"{r.conditions.board} {r.model}" for r in results([ONE, bad, half, late, npu], wanted)]

    assert names(Wanted()) == ["bench bad", "bench late", "bench m", "npu m"]
    assert names(Wanted(model="[lm]*")) == ["bench late", "bench m", "npu m"]
    assert names(Wanted(board="npu-1")) == names(Wanted(board="npu")) == ["npu m"]
    assert names(Wanted(status="failed")) == ["bench bad"]
    assert names(Wanted(status="ok", board="bench")) == ["bench late", "bench m"]
    assert names(Wanted(since=moment("2026-01-02T01:00+01:00"))) == ["bench late"]
    with pytest.raises(Incomparable, match="no such measurement"):
        names(Wanted(model="M"))


def test_flags_are_counted_by_round() -> None:
    rounds = [replace(ONE, job_id=str(n), round=n, flags=("drift",) if n else ("drift", "unchecked")) for n in range(3)]
    (result,) = results(rounds, Wanted())
    assert result.flags == {"drift": 3, "unchecked": 1}
    assert result.to_json()["median_us"] == 5 and result.to_json()["n"] == 9


def test_a_moment() -> None:
    assert moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    with pytest.raises(UsageError, match="yesterday: no ISO 8601"):
        moment("yesterday")
