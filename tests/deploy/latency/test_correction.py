"""The table's correction, on latencies whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.latency.agreement import Sample
from deploy.run.records import Correction
from deploy.latency.correction import Blocks, Feedback, correct, held_out, mean_error, plain
from hil.errors import CheckFailed
from nas.table import Entry, Table
from tests.deploy.made_up_device import SPACE, Device, architectures

SLOPES = {1: 0.8, 2: 1.2, 3: 1.0}


def table_of(device: Device) -> Table:
    entries = {s: Entry(us, 0.998 * us, 1.002 * us, 40, "isolated") for s, us in device.true_us.items()}
    return Table("latency", "us", entries, {"space": SPACE.digest})


def world(device: Device, models: int, slopes: dict[int, float] | None = None) -> tuple[Table, list[Sample]]:
    """A true table, and whole models in which a block takes `slopes` times as long as alone."""
    table = table_of(device)
    found = []
    for sample in map(device.sample, architectures(models)):
        more = sum(((slopes or {}).get(s.block, 1.0) - 1) * device.true_us[s] for s in sample.architecture.subnets)
        halves = tuple(half + more for half in sample.halves_us)
        found.append(Sample(sample.architecture, sample.additive_us, sum(halves) / 2, halves))
    return table, found


def test_feedback_finds_the_slopes():
    device = Device(noise=0.001)
    table, samples = world(device, 60, SLOPES)
    corrected, c, feedback = correct(SPACE, table, samples)
    assert c.applied and feedback is not None and c.n_models == 60
    assert c.error_held_out < 0.7 < c.error_before
    assert c.tau_b_held_out > c.tau_b_before
    for block, slope in SLOPES.items():
        subnets = list(SPACE.subnets(block))
        ratio = np.polyfit([table[s] for s in subnets], [corrected[s] for s in subnets], 1)[0]
        assert ratio == pytest.approx(slope, abs=0.06)
    assert {entry.source for entry in corrected.entries.values()} == {"corrected"}


def test_the_corrected_sum_is_what_the_model_predicts_where_seams_cost_nothing():
    table, samples = world(Device(), 40, SLOPES)
    corrected, c, feedback = correct(SPACE, table, samples)
    assert feedback is not None
    unseen = architectures(20, seed=9)
    sums = np.array([corrected.total(a) for a in unseen]) + c.constant_us
    without_seams = feedback.features.group != 2
    z = feedback.features.matrix(unseen)
    expected = (
        feedback.blocks.sums(unseen) + feedback.constant_us + z[:, without_seams] @ feedback.effects_us[without_seams]
    )
    assert sums == pytest.approx(expected, rel=1e-9)


def test_a_seam_is_found_and_no_sum_over_blocks_can_hold_it():
    device = Device(noise=0.0005, own=0.0, seam_us=1500.0)
    table, samples = world(device, 160)
    feedback = Feedback.fitted(SPACE, Blocks.of(table), samples)
    unseen = architectures(60, seed=11)
    y = np.array([device.whole_us(a) for a in unseen])
    with_seams = mean_error(feedback.predict_us(unseen), y)
    corrected = feedback.corrected(table)
    without = mean_error(np.array([corrected.total(a) for a in unseen]) + feedback.constant_us, y)
    assert with_seams < 0.5 * without


def test_seams_have_no_part_that_blocks_could_hold():
    features = Feedback.fitted(SPACE, Blocks.of(table_of(Device())), []).features
    for first in SPACE.choices:
        rows = [features.seams[1, first, second] for second in SPACE.choices]
        assert np.abs(np.sum(rows, axis=0)).max() < 1e-12


def test_feedback_that_does_not_help_is_not_applied():
    rng = np.random.default_rng(3)
    table = table_of(Device())
    samples = []
    for a in architectures(12):
        y = table.total(a) + 300 + rng.normal(0, 400)
        samples.append(Sample(a, table.total(a), y, (y - 300, y + 300)))
    corrected, c, feedback = correct(SPACE, table, samples)
    helps = c.error_held_out < c.error_before and c.tau_b_held_out >= c.tau_b_before
    assert c.applied == helps == (feedback is not None)
    if not c.applied:
        assert dict(corrected.entries) == dict(table.entries)
        assert c.constant_us == pytest.approx(np.median([s.measured_us - s.additive_us for s in samples]))


def test_feedback_that_mixes_up_ranks_is_not_applied(monkeypatch: pytest.MonkeyPatch):
    """However much it lowers the error: a search asks which model is faster."""
    table, samples = world(Device(), 20, SLOPES)
    y = np.array([s.measured_us for s in samples])
    order = np.argsort(y).reshape(-1, 2)  # neighbours change places, a hair beside their middle
    swapped = y.copy()
    swapped[order] = y[order].mean(axis=1, keepdims=True) + np.array([0.01, -0.01])
    monkeypatch.setattr("deploy.latency.correction.held_out", lambda *_: swapped)
    corrected, c, feedback = correct(SPACE, table, samples)
    assert c.error_held_out < c.error_before and c.tau_b_held_out < c.tau_b_before
    assert not c.applied and feedback is None
    assert dict(corrected.entries) == dict(table.entries)


def test_held_out_predictions_never_saw_the_model():
    """Spoiling one model's measurement moves the others' predictions, and not its own."""
    table, samples = world(Device(), 20, SLOPES)
    spoiled = list(samples)
    spoiled[4] = Sample(
        samples[4].architecture, samples[4].additive_us, samples[4].measured_us * 1.2, samples[4].halves_us
    )
    before, after = held_out(SPACE, table, samples), held_out(SPACE, table, spoiled)
    same_fold = np.arange(20) % 10 == 4
    assert after[same_fold] == pytest.approx(before[same_fold])
    assert np.abs(after - before)[~same_fold].min() > 0


def test_more_models_are_fitted_to_and_not_judged():
    table, samples = world(Device(), 40, SLOPES)
    few, rest = samples[:8], samples[8:]
    assert len(held_out(SPACE, table, few, rest)) == len(plain(table, few, rest)) == 8
    y = np.array([s.measured_us for s in few])
    assert mean_error(held_out(SPACE, table, few, rest), y) < mean_error(held_out(SPACE, table, few), y)
    assert correct(SPACE, table, few, rest)[1].n_models == 40


def test_intervals_widen_by_what_the_effects_leave_open():
    table, samples = world(Device(), 8, SLOPES)
    feedback = Feedback.fitted(SPACE, Blocks.of(table), samples)
    corrected = feedback.corrected(table)
    for subnet, entry in table.entries.items():
        assert corrected.entries[subnet].high - corrected[subnet] >= entry.high - entry.value - 1e-9


def test_too_few_models_are_refused():
    table, samples = world(Device(), 3)
    with pytest.raises(CheckFailed, match="3 whole models are too few"):
        correct(SPACE, table, samples)


def test_the_record_is_plain_json():
    table, samples = world(Device(), 12)
    _, c, _ = correct(SPACE, table, samples)
    assert isinstance(c, Correction)
    assert set(c.prior_std) == {"slopes", "layers", "seams", "own"}
