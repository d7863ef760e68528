"""Shares of a latency that was measured beside: what a round shares cancels, and the interval says what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from deploy.latency.shares import enough_rounds, latency_shares
from hil.errors import Incomparable
from hil.job import MeasureProtocol
from hil.measurement import Measurement
from tests.hil.stored_measurements import ONE


def measured(levels_us: Sequence[float], share: float, seed: int = 0) -> list[Measurement]:
    """Of a teacher at these levels, round by round, and of a model at a share of them, in no order."""
    rng = np.random.default_rng(seed)
    made = [
        replace(
            ONE,
            model=name,
            model_sha256=name,
            round=i,
            job_id=f"{name}{i}",
            latencies_us=tuple(int(factor * level * (1 + rng.exponential(0.02))) for _ in range(30)),
        )
        for i, level in enumerate(levels_us)
        for name, factor in (("fast", share), ("teacher", 1.0))
    ]
    return list(reversed(made))


def test_what_rounds_share_cancels() -> None:
    """Rounds that are up to twice as slow leave the share within a per cent."""
    shares = latency_shares(measured((10_000, 20_000, 12_000, 16_000), 0.9), "teacher")
    fast, teacher = shares["fast"], shares["teacher"]
    assert (teacher.value, teacher.low, teacher.n, teacher.source) == (1.0, pytest.approx(1.0, abs=0.02), 4, "measured")
    assert fast.low <= fast.value <= fast.high and fast.value == pytest.approx(0.9, abs=0.01)
    assert fast.high - fast.low < 0.03


def test_fewer_rounds_than_an_interval_needs_are_refused() -> None:
    with pytest.raises(Incomparable, match="3 rounds"):
        latency_shares(measured((10_000, 10_000, 10_000), 0.9), "teacher")


def test_a_protocol_has_enough_rounds() -> None:
    assert enough_rounds(MeasureProtocol(rounds=2)).rounds == 4
    assert enough_rounds(MeasureProtocol(rounds=6, runs=7)) == MeasureProtocol(rounds=6, runs=7)
