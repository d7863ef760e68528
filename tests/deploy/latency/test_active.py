"""Choosing what to measure: on a device whose truth is known, and as a replay of its record."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deploy.latency.active import Plan, covering, measure_actively
from deploy.latency.features import block_features
from deploy.latency.predictor import fit
from deploy.studies.latency.record import Recorded
from deploy.studies.latency.replay import RecordedSource, TableEvaluator, at_random, compete
from deploy.studies.latency.replay_plot import write_image
from deploy.studies.latency.replay_record import ReplayRecord
from deploy.studies.latency.replay_summary import agreement_text, summarized, table_of_methods
from hil.errors import UsageError
from nas.errors import TableError
from tests.deploy.made_up_device import SIZE, SPACE, Device, nsr_table, recorded

FEATURES = block_features(SPACE, SIZE)
ALL = len(list(SPACE.all_subnets()))
QUICK = Plan(batch=12, draws=4, seed=1)


def steps(device: Device, plan: Plan = QUICK, **more) -> list:
    return list(measure_actively(SPACE, FEATURES, nsr_table(), device, plan, **more))


def test_the_first_batch_has_every_choice_twice_in_every_layer():
    cells = tuple(FEATURES.rows)
    first = covering(SPACE, cells, random.Random(0))
    for block, spec in enumerate(SPACE.blocks, start=1):
        for layer in range(spec.layers):
            found = [s.choices[layer] for s in first if s.block == block]
            assert all(found.count(choice) >= 1 for choice in SPACE.choices)
            assert len(found) <= 2 * len(SPACE.choices)


def test_it_ends_when_the_front_is_stable_long_before_everything_is_measured():
    device = Device()
    *_, last = steps(device)
    assert last.ended == "the front is stable"
    assert len(last.observed.blocks) < ALL / 3
    assert last.fronts.expected_loss < QUICK.tolerance and last.fronts.expected_tau > 1 - QUICK.tau_tolerance
    assert len(set(device.asked)) == len(device.asked)  # nothing twice


def test_the_same_seed_asks_the_same():
    one, other = Device(), Device()
    steps(one)
    steps(other)
    assert one.asked == other.asked


def test_what_is_known_is_not_asked_again():
    device = Device()
    first = steps(device)[0]
    again = Device()
    steps(again, observed=first.observed)
    assert not set(again.asked) & {str(s) for s in first.observed.blocks}


def test_limits_hold():
    device = Device(subnet=0.3)  # nothing can be predicted: it would go on
    *_, last = steps(device, Plan(most_blocks=60, batch=12, draws=3, tolerance=0, tau_tolerance=0))
    assert len(last.observed.blocks) == 60
    assert last.ended == "as many blocks as were asked for"
    *_, last = steps(device, Plan(budget_s=4.0, batch=12, draws=3, tolerance=0, tau_tolerance=0))
    assert last.ended == "the budget is spent"
    assert last.observed.seconds >= 4.0


def test_whole_models_are_asked_where_context_matters():
    device = Device(boundary_us=2000.0)
    *_, last = steps(device, Plan(batch=12, draws=4, budget_s=20.0, tolerance=0, tau_tolerance=0))
    assert last.observed.networks
    assert all(sample.measured_us > 0 for sample in last.observed.networks)


def test_active_is_closer_to_the_truth_on_the_front_than_random_choice():
    record = recorded(Device(subnet=0.02))
    source = RecordedSource(record)
    evaluator = TableEvaluator.of(source)
    active, chance = [], []
    for seed in range(3):
        plan = Plan(most_blocks=60, batch=12, draws=6, seed=seed, tolerance=0, everywhere=0.0)
        *_, last = measure_actively(source.space, source.features, source.nsr, source, plan)
        active.append(evaluator.hypervolume_share(last.model))
        chosen = at_random(source, len(last.observed.blocks), 0, seed)
        chance.append(evaluator.hypervolume_share(fit(source.features, chosen.blocks)))
    assert np.mean(active) > np.mean(chance)
    assert max(active + chance) <= 1 + 1e-12


def test_a_record_survives_its_file_and_compares(tmp_path):
    record = recorded(Device())
    record.save(tmp_path / "r.parquet")
    loaded = Recorded.load(tmp_path / "r.parquet")
    assert loaded.rows == record.rows and loaded.space == record.space and loaded.size == SIZE
    found = list(compete(loaded, 1, Plan(most_blocks=60, batch=12, draws=3)))
    assert [o.method for o in found[:3]] == ["everything", "active", "random"]
    assert [o.blocks for o in found[1::2]] == sorted(o.blocks for o in found[2::2])
    everything, active, chance = (o for o in found if o.ended)
    assert everything.hypervolume == 1 and everything.blocks == ALL
    assert active.blocks == chance.blocks <= 60 and active.models == chance.models
    assert active.board_s < everything.board_s
    assert active.tau_b_corrected > 0.9
    summary = summarized(loaded, found)
    assert summary.methods["active"].blocks.mean == active.blocks and summary.held_out == 30
    assert table_of_methods(summary).row_count == 3
    assert summary.agreement.predicted.agreement.n_models == 30
    assert "regret at most" in agreement_text(summary.agreement.corrected)
    summary.write(tmp_path / "c.json")
    assert ReplayRecord.read(tmp_path / "c.json").outcomes == summary.outcomes
    write_image(tmp_path / "c.svg", summary)
    words = (tmp_path / "c.svg").read_text()
    assert "over 30" in words and "everything measured" in words


@pytest.mark.parametrize("content", [b"", b"PAR1 not a table"])
def test_a_damaged_record_is_refused(tmp_path, content):
    path = tmp_path / "r.parquet"
    path.write_bytes(content)
    with pytest.raises(TableError, match="not a record of this kit"):
        Recorded.load(path)
    with pytest.raises(TableError, match=r"none\.parquet: no such file; give one"):
        Recorded.load(tmp_path / "none.parquet")


def test_a_record_without_held_out_models_compares_nothing():
    record = recorded(Device(), held_out=0)
    with pytest.raises(UsageError, match="no held-out models"):
        next(compete(record, 1, QUICK))
