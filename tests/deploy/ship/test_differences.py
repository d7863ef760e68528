"""What is said of a model's score and of its latency's age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from deploy.run.records import LatencyRecord
from deploy.ship.differences import measured_text
from hil.stats import summarize
from tests.deploy.run_records import summary
from tests.hil.stored_measurements import ONE

NOON, LATER = "2026-01-31T12:00:30+00:00", "2026-02-01T13:30:00+00:00"


def test_a_latency_has_the_time_of_its_first_sample() -> None:
    rounds = [replace(ONE, started_at=LATER), replace(ONE, started_at=NOON)]
    assert LatencyRecord.of(summarize([2.0, 3.0]), rounds).measured_at == NOON


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([NOON, NOON], "measured 2026-01-31 12:00 UTC"),
        ([LATER, NOON], "measured 2026-01-31 12:00 to 2026-02-01 13:30 UTC"),
        (["2026-01-31T13:00:30+01:00"], "measured 2026-01-31 12:00 UTC"),
        ([NOON, None], "when they were measured is not recorded"),
    ],
)
def test_when_latencies_were_measured(times: Sequence[str | None], said: str) -> None:
    model = summary().models[0]
    models = [replace(model, latency_us=replace(model.latency_us, measured_at=time)) for time in times]
    assert measured_text(models) == f"latencies: {said}"
