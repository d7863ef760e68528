"""One way to quantize a run's network: by the run's scheme and its board's safe resize factors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deploy.run import quantizing
from nas.quant.scheme import Scheme


@pytest.fixture
def asked(monkeypatch):
    """What reaches the quantizer, and what the tail."""
    given = {}
    monkeypatch.setattr(quantizing, "quantize", lambda *a, **k: given.update(k, positional=a))
    monkeypatch.setattr(quantizing, "with_tail", lambda graph, tail: given.update(tail=tail))
    return given


def test_the_run_s_scheme_and_resize_factors(asked):
    own, other = Scheme("tensor", equalize=True), Scheme("channel")
    experiment = SimpleNamespace(quantization=SimpleNamespace(scheme=own), data=SimpleNamespace(size=(64, 96)))
    context = SimpleNamespace(experiment=experiment, calibration="images", resize_factors=(2, 4), tail="nearest")
    quantizing.quantize_network(context, "model")
    assert asked["positional"] == ("model", ["images"], (64, 96))
    assert (asked["scheme"], asked["resize_factors"], asked["architecture"]) == (own, (2, 4), None)
    assert asked["tail"] == "nearest"
    quantizing.quantize_network(context, "model", scheme=other, tail="classes")
    assert (asked["scheme"], asked["tail"]) == (other, "classes")
