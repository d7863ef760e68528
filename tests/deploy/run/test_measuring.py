"""Measuring a run's models: one way, with progress; a board that is lost is a warning, not a print."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deploy.run import measuring
from deploy.run.folder import Progress
from hil.fleet import Lost
from hil.job import MeasureProtocol

PROTOCOL = MeasureProtocol(warmup_runs=0, runs=1, rounds=2)


def context(tmp_path, boards: int) -> SimpleNamespace:
    return SimpleNamespace(
        path=tmp_path, experiment=SimpleNamespace(seed=0), boards=[SimpleNamespace()] * boards, board=None
    )


@pytest.fixture
def fleet(monkeypatch):
    """A fleet that loses a board between two measurements."""
    events = [SimpleNamespace(model="a"), Lost("left", "no answer"), SimpleNamespace(model="b")]
    monkeypatch.setattr(measuring, "measure_on_fleet", lambda *_, **__: iter(events))
    monkeypatch.setattr(measuring, "known_good", lambda _: None)


def drain(generator):
    shown = []
    while True:
        try:
            shown.append(next(generator))
        except StopIteration as end:
            return shown, end.value


def test_progress_and_measurements(fleet, tmp_path, caplog, capsys):
    jobs = [SimpleNamespace(name=name) for name in "ab"]
    shown, found = drain(measuring.measure_with_progress(context(tmp_path, 2), jobs, PROTOCOL, "agree", done=3))
    assert [m.model for m in found] == ["a", "b"]
    assert shown == [Progress("agree", done, 7, f"measured {m.model}", (m,)) for done, m in enumerate(found, start=4)]
    assert caplog.messages == ["lost left: no answer"] and capsys.readouterr().out == ""


def test_a_measurement_may_be_refused(fleet, tmp_path):
    def refuse(measurement):
        raise ValueError(measurement.model)

    jobs = [SimpleNamespace(name="a")]
    with pytest.raises(ValueError, match="a"):
        drain(measuring.measure_with_progress(context(tmp_path, 2), jobs, PROTOCOL, "agree", check=refuse))


def test_nothing_to_measure_opens_nothing(tmp_path):
    shown, found = drain(measuring.measure_with_progress(context(tmp_path, 1), [], PROTOCOL, "agree"))
    assert shown == found == [] and not list(tmp_path.iterdir())
