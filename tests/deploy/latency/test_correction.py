"""The table's correction, on latencies whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.context_model import BlockLatencies, ContextModel
from deploy.latency.correction import by_offset, correct, correction_of, held_out, mean_error, ranks_worse
from deploy.latency.estimates import Z95
from deploy.run.records import Correction
from hil.errors import CheckFailed
from nas.errors import TableError
from nas.estimate import Estimate
from nas.table import Table
from tests.deploy.made_up_device import SPACE, Device, architectures

SLOPES = {1: 0.8, 2: 1.2, 3: 1.0}


def table_of(device: Device) -> Table:
    entries = {s: Estimate(us, None, 0.998 * us, 1.002 * us, 40, "measured") for s, us in device.true_us.items()}
    return Table("latency", "us", entries, {"space": SPACE.digest})


def world(device: Device, models: int, slopes: dict[int, float] | None = None) -> tuple[Table, list[MeasuredNetwork]]:
    """A true table, and whole models in which a block takes `slopes` times as long as alone."""
    table = table_of(device)
    found = []
    for sample in map(device.sample, architectures(models)):
        more = sum(((slopes or {}).get(s.block, 1.0) - 1) * device.true_us[s] for s in sample.architecture.subnets)
        halves = tuple(half + more for half in sample.halves_us)
        found.append(MeasuredNetwork(sample.architecture, sample.additive_us, sum(halves) / 2, halves))
    return table, found


def test_the_correction_finds_the_slopes():
    device = Device(noise=0.001)
    table, samples = world(device, 60, SLOPES)
    corrected, c, model = correct(SPACE, table, samples)
    assert c.applied and model is not None and c.n_models == 60
    assert c.error_held_out < 0.7 < c.error_before
    assert c.tau_b_held_out > c.tau_b_before
    for block, slope in SLOPES.items():
        subnets = list(SPACE.subnets(block))
        ratio = np.polyfit([table[s] for s in subnets], [corrected[s] for s in subnets], 1)[0]
        assert ratio == pytest.approx(slope, abs=0.06)
    assert {entry.source for entry in corrected.entries.values()} == {"corrected"}


def test_the_corrected_sum_is_what_the_model_predicts_where_boundaries_cost_nothing():
    table, samples = world(Device(), 40, SLOPES)
    corrected, c, model = correct(SPACE, table, samples)
    assert model is not None
    unseen = architectures(20, seed=9)
    sums = np.array([corrected.total(a) for a in unseen]) + c.constant_us
    without_boundaries = model.features.group != 2
    z = model.features.matrix(unseen)
    expected = (
        model.blocks.sums(unseen) + model.constant_us + z[:, without_boundaries] @ model.effects_us[without_boundaries]
    )
    assert sums == pytest.approx(expected, rel=1e-9)


def test_a_boundary_is_found_and_no_sum_over_blocks_can_hold_it():
    device = Device(noise=0.0005, subnet=0.0, boundary_us=1500.0)
    table, samples = world(device, 160)
    model = ContextModel.fitted(SPACE, BlockLatencies.of(table), samples)
    unseen = architectures(60, seed=11)
    y = np.array([device.whole_us(a) for a in unseen])
    with_boundaries = mean_error(model.predict_us(unseen), y)
    corrected = model.corrected(table)
    without = mean_error(np.array([corrected.total(a) for a in unseen]) + model.constant_us, y)
    assert with_boundaries < 0.5 * without


def test_boundaries_have_no_part_that_blocks_could_hold():
    features = ContextModel.fitted(SPACE, BlockLatencies.of(table_of(Device())), []).features
    for first in SPACE.choices:
        rows = [features.boundaries[1, first, second] for second in SPACE.choices]
        assert np.abs(np.sum(rows, axis=0)).max() < 1e-12


def test_a_correction_that_does_not_help_is_not_applied():
    rng = np.random.default_rng(3)
    table = table_of(Device())
    samples = []
    for a in architectures(12):
        y = table.total(a) + 300 + rng.normal(0, 400)
        samples.append(MeasuredNetwork(a, table.total(a), y, (y - 300, y + 300)))
    corrected, c, model = correct(SPACE, table, samples)
    sums, y = (np.array([getattr(s, name) for s in samples]) for name in ("additive_us", "measured_us"))
    helps = c.error_held_out < c.error_before and not ranks_worse(sums, held_out(SPACE, table, samples), y)
    assert c.applied == helps == (model is not None)
    if not c.applied:
        assert dict(corrected.entries) == dict(table.entries)
        assert c.constant_us == pytest.approx(np.median([s.measured_us - s.additive_us for s in samples]))


def test_a_correction_that_mixes_up_ranks_is_not_applied(monkeypatch: pytest.MonkeyPatch):
    """However much it lowers the error: a search asks which model is faster."""
    table, samples = world(Device(), 40, SLOPES)
    y = np.array([s.measured_us for s in samples])
    order = np.argsort(y).reshape(-1, 4)  # every four neighbours in reverse, a hair beside their middle
    swapped = y.copy()
    swapped[order] = y[order].mean(axis=1, keepdims=True) + np.array([0.02, 0.01, -0.01, -0.02])
    monkeypatch.setattr("deploy.latency.correction.held_out", lambda *_: swapped)
    corrected, c, model = correct(SPACE, table, samples)
    assert c.error_held_out < c.error_before and c.tau_b_held_out < c.tau_b_before
    assert not c.applied and model is None
    assert dict(corrected.entries) == dict(table.entries)


def test_a_loss_of_rank_within_noise_withholds_no_correction():
    """A board 10 % slower than at the profile: most of the error goes, one pair of 66 changes places."""
    table, rng = table_of(Device(noise=0.003)), np.random.default_rng(0)
    samples = []
    for a in architectures(12):
        first, second = ((500 + 1.1 * table.total(a)) * (1 + 0.003 * rng.normal()) for _ in range(2))
        samples.append(MeasuredNetwork(a, table.total(a), (first + second) / 2, (first, second)))
    _, c, _ = correct(SPACE, table, samples)
    assert c.tau_b_held_out < c.tau_b_before and c.error_held_out < 0.25 * c.error_before
    assert c.applied


def test_ranks_are_worse_only_beyond_noise():
    y = np.arange(20.0)
    swapped = y.copy()
    swapped[[3, 4]] = y[[4, 3]]
    assert not ranks_worse(y, swapped, y)
    assert ranks_worse(y, np.roll(y, 7), y) and not ranks_worse(np.roll(y, 7), y, y) and not ranks_worse(y, y, y)


def test_held_out_predictions_never_saw_the_model():
    """Spoiling one model's measurement moves the others' predictions, and not its own."""
    table, samples = world(Device(), 20, SLOPES)
    spoiled = list(samples)
    spoiled[4] = MeasuredNetwork(
        samples[4].architecture, samples[4].additive_us, samples[4].measured_us * 1.2, samples[4].halves_us
    )
    before, after = held_out(SPACE, table, samples), held_out(SPACE, table, spoiled)
    same_fold = np.arange(20) % 10 == 4
    assert after[same_fold] == pytest.approx(before[same_fold])
    assert np.abs(after - before)[~same_fold].min() > 0


def test_more_models_are_fitted_to_and_not_evaluated():
    table, samples = world(Device(), 40, SLOPES)
    few, rest = samples[:8], samples[8:]
    assert len(held_out(SPACE, table, few, rest)) == len(by_offset(table, few, rest)) == 8
    y = np.array([s.measured_us for s in few])
    assert mean_error(held_out(SPACE, table, few, rest), y) < mean_error(held_out(SPACE, table, few), y)
    assert correct(SPACE, table, few, rest)[1].n_models == 40


def test_intervals_widen_by_what_the_effects_leave_open():
    table, samples = world(Device(), 8, SLOPES)
    model = ContextModel.fitted(SPACE, BlockLatencies.of(table), samples)
    corrected = model.corrected(table)
    for subnet, entry in table.entries.items():
        assert corrected.entries[subnet].high - corrected[subnet] >= entry.high - entry.value - 1e-9


def test_too_few_models_are_refused():
    table, samples = world(Device(), 3)
    with pytest.raises(CheckFailed, match="3 full networks are too few"):
        correct(SPACE, table, samples)


def test_a_corrected_table_has_its_record(tmp_path):
    table, samples = world(Device(), 12)
    corrected, c, _ = correct(SPACE, table, samples)
    assert isinstance(c, Correction)
    assert set(c.prior_std) == {"slopes", "layers", "boundaries", "network"}
    corrected.save(tmp_path / "latency.parquet")
    assert correction_of(Table.load(tmp_path / "latency.parquet")) == c and correction_of(table) is None
    with pytest.raises(TableError, match=r"n_models.*run `hilnas agree`"):
        correction_of(replace(table, provenance={"correction": {"constant_us": 1.0}}))


def test_standard_errors_widen_with_the_intervals():
    """A table whose entries have one keeps the interval 1.96 of them wide to either side."""
    device = Device()
    entries = {s: m for s, m, _ in device.blocks(list(SPACE.all_subnets()))}
    table = Table("latency", "us", entries, {"space": SPACE.digest})
    model = ContextModel.fitted(SPACE, BlockLatencies.of(table), [device.sample(a) for a in architectures(8)])
    for subnet, entry in model.corrected(table).entries.items():
        assert entry.std_error is not None and entry.std_error > entries[subnet].std_error
        assert entry.high - entry.value == pytest.approx(Z95 * entry.std_error)
