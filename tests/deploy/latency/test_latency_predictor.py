"""Block latencies predicted from others: against the exact posterior, and on a device whose truth is known."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from deploy.latency import predictor
from deploy.latency.estimates import Z95
from deploy.latency.features import GROUPS, block_features, operator_counts
from deploy.latency.predictor import BlockPriorStd, fit, predict
from hil.errors import UsageError
from nas.estimate import Estimate
from tests.deploy.made_up_device import SIZE, SPACE, Device

FEATURES = block_features(SPACE, SIZE)
SUBNETS = list(SPACE.all_subnets())


def measured(device: Device, count: int, seed: int = 0) -> dict:
    chosen = random.Random(seed).sample(SUBNETS, count)
    return {s: m for s, m, _ in device.blocks(chosen)}


def test_operator_counts_have_every_multiply_accumulate():
    subnet = next(SPACE.subnets(2))  # k3e3 in every layer, stride 1, dilation 2 in the first
    height, width = 16, 24  # 64 x 96 after the stem and a block of stride 2
    macs = 0
    for i in range(3):
        channels, out, _, _ = SPACE.layer_geometry(2, i)
        macs += height * width * channels * 3 * (channels + 9 + out)
    found = [
        amount for name, amount in operator_counts(SPACE, SIZE, subnet) if name.endswith("MMACs") and " s" not in name
    ]
    assert sum(found) == pytest.approx(macs / 1e6)


def test_features_say_which_choice_stands_where():
    subnet = SUBNETS[7]
    named = {FEATURES.names[i]: value for i, value in FEATURES.rows[subnet]}
    for i, choice in enumerate(subnet.choices):
        assert named[f"b1/{i} {choice}"] == 1
    assert named[f"b1/0 {subnet.choices[0]} {subnet.choices[1]}"] == 1
    assert {GROUPS[g] for g in FEATURES.group} == set(GROUPS)


def test_the_posterior_is_the_textbooks():
    """Against the dense formula over all cells: K = X S X' + E, y = f + noise."""
    known = measured(Device(noise=0.05), 40)  # with little noise the dense formula loses its digits
    prior_std = BlockPriorStd(0.1, 0.02, 0.01)
    model = fit(FEATURES, known, prior_std=prior_std)
    rows = sorted(model.index[s] for s in known)
    x = FEATURES.matrix(model.cells)
    y = np.array([known[model.cells[i]].value for i in rows])
    error = np.array([known[model.cells[i]].std_error for i in rows])
    problem = predictor._Problem(x[rows], y, np.hypot(error, predictor.LEAST_NOISE * y), FEATURES.group)
    weights_only = x @ np.diag(problem.prior(prior_std)) @ x.T
    at = np.ix_(rows, rows)
    by_weights = weights_only[:, rows] @ np.linalg.solve(
        weights_only[at] + np.diag(problem.error**2 + (0.01 * y) ** 2), y
    )
    effects = np.zeros(len(x))
    effects[rows] = (0.01 * y) ** 2
    others = np.setdiff1d(np.arange(len(x)), rows)
    effects[others] = (0.01 * np.maximum(by_weights[others], 1)) ** 2
    prior = weights_only + np.diag(effects)
    gain = prior[:, rows] @ np.linalg.inv(prior[at] + np.diag(problem.error**2))
    assert model.mean_us == pytest.approx(np.maximum(gain @ y, 1.0), rel=1e-6)
    covariance = prior - gain @ prior[rows]
    assert model.deviation_us == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-4)
    joint = model.directions @ model.weights @ model.directions.T + np.diag(model.subnet_variance_us2)
    assert joint == pytest.approx(covariance, rel=1e-3, abs=1e-3 * covariance.max())


def test_both_ways_to_the_evidence_agree():
    device = Device()
    known = measured(device, 60)
    x = FEATURES.matrix(list(known))
    y = np.array([m.value for m in known.values()])
    problem = predictor._Problem(x, y, 0.002 * y, FEATURES.group)
    one, other = BlockPriorStd(0.1, 0.02, 0.01), BlockPriorStd(0.02, 0.02, 0.05)
    through_weights = predictor._solve(problem, one)[2] - predictor._solve(problem, other)[2]
    through_measured = predictor._evidence(problem, one) - predictor._evidence(problem, other)
    assert through_measured == pytest.approx(through_weights, rel=1e-6)


def test_a_tenth_of_the_blocks_predicts_the_others():
    device = Device()
    model = fit(FEATURES, measured(device, len(SUBNETS) // 10))
    truth = np.array([device.true_us[s] for s in model.cells])
    unseen = ~model.measured
    error = np.abs(model.mean_us / truth - 1)[unseen]
    assert np.mean(error) < 0.03
    z = ((model.mean_us - truth) / model.deviation_us)[unseen]
    assert np.mean(np.abs(z) < 1.96) > 0.8  # intervals that hold about what they promise


def test_what_was_measured_is_kept():
    device = Device(subnet=0.2, noise=0.001)  # features explain little
    known = measured(device, 80)
    model = fit(FEATURES, known)
    for s, m in known.items():
        assert model.mean_us[model.index[s]] == pytest.approx(m.value, rel=0.01)


def test_a_measurement_that_contradicts_itself_is_drawn_to_the_others():
    """Rounds that differ by half make a wide interval around a wrong median; agreeing ones stay."""
    device = Device(subnet=0.005, noise=0.001)
    entries = {}
    for s, m, _ in device.blocks(SUBNETS):
        entries[s] = Estimate(m.value, None, 0.998 * m.value, 1.002 * m.value, 20, "measured")
    spoiled = SUBNETS[100]
    true_us = device.true_us[spoiled]
    entries[spoiled] = Estimate(1.25 * true_us, None, true_us, 1.5 * true_us, 20, "measured")
    found = predict(fit(FEATURES, entries), entries)
    assert found[spoiled].value == pytest.approx(true_us, rel=0.03)
    assert found[spoiled].high - found[spoiled].low < 0.2 * true_us
    others = [found[s].value / entries[s].value for s in SUBNETS if s != spoiled]
    assert np.abs(np.array(others) - 1).max() < 0.02
    assert {(e.n, e.source) for e in found.values()} == {(20, "measured")}


def test_what_was_not_measured_says_so():
    known = measured(Device(), 60)
    entries = {s: Estimate(m.value, None, m.value, m.value, 7, "measured") for s, m in known.items()}
    found = predict(fit(FEATURES, known), entries)
    assert set(found) == set(SUBNETS)
    assert {found[s].source for s in known} == {"measured"} and {found[s].n for s in known} == {7}
    rest = [found[s] for s in SUBNETS if s not in known]
    assert {(e.n, e.source) for e in rest} == {(0, "predicted")}
    assert all(e.low < e.value < e.high for e in rest)
    assert [e.std_error for e in rest] == pytest.approx([(e.high - e.value) / Z95 for e in rest])


def test_drawn_tables_have_the_posteriors_spread():
    model = fit(FEATURES, measured(Device(), 60))
    drawn = model.samples(4000, np.random.default_rng(0))
    assert drawn.std(axis=0) == pytest.approx(model.deviation_us, rel=0.1)
    assert drawn.mean(axis=0) == pytest.approx(model.mean_us, abs=0.1 * model.deviation_us.max())


def test_an_error_is_the_one_that_is_known_or_the_intervals():
    """An interval of a clock that counts microseconds has no width below that."""
    known = Estimate(100.0, 0.1, 90.0, 110.0, 20, "measured")
    assert predictor.error_us(known) == 0.1
    assert predictor.error_us(replace(known, std_error=None)) == pytest.approx(10 / Z95)
    assert predictor.error_us(replace(known, std_error=None, low=100.0, high=100.0)) == 0.5


def test_too_few_are_refused():
    with pytest.raises(UsageError, match="4 measured subnets are too few for a fit of 3 blocks"):
        fit(FEATURES, measured(Device(), 4))


def test_a_latency_that_is_none_is_named():
    known = measured(Device(), 20)
    bad = sorted(known)[3]
    known[bad] = Estimate(float("nan"), 1.0, 0.0, 1.0, 1, "measured")
    with pytest.raises(UsageError, match=str(bad)):
        fit(FEATURES, known)
