"""A table that does not rank full networks names why, and pairs of neighbours within a tenth of its time repair it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.latency.agreement import MeasuredNetwork, tau_b
from deploy.latency.context_model import BlockLatencies, ContextModel
from deploy.latency.correction import correct
from deploy.latency.effects import effects
from deploy.latency.interactions import REPAIRS, PairEffects, repairs_of
from deploy.latency.pairs import BlockPair, pairs_across, planned
from deploy.latency.suspects import (
    boundary_name,
    boundary_number,
    features_of,
    meeting,
    parts,
    repair_text,
    suspect_text,
    suspects,
)
from deploy.pipeline.repair import SHARE
from deploy.run.records import Repair, plain
from hil.errors import CheckFailed
from nas.errors import TableError
from nas.space import Architecture, Choice, SearchSpace
from nas.table import Table
from tests.deploy.latency.planted_device import (
    DEMO,
    GRAPH_US,
    STEM_US,
    TABLE1,
    Plant,
    PlantedDevice,
    nothing,
    retiled_stem,
    slower_first_block,
    wide_meets_wide,
)

SEEDS = range(5)


@dataclass(frozen=True)
class Repaired:
    """tau-b before and after on the agreement's models and after on others; `share`: of the table's board time."""

    where: str
    before: float
    after: float
    others: float
    share: float
    table: Table


def tau_of(table: Table, networks: Sequence[MeasuredNetwork]) -> float:
    sums = np.array([table.total(n.architecture) for n in networks])
    return tau_b(sums, np.array([n.measured_us for n in networks]))


def repaired(space: SearchSpace, plant: Plant, seed: int, models: int = 36) -> Repaired | None:
    """As `hilnas lut latency --repair` does; None where nothing is named."""
    device = PlantedDevice(space, plant, seed)
    table = device.table()
    profile_s = device.board_s
    networks = device.networks(table, models)
    before = tau_of(table, networks)
    found = suspects(space, networks, seed)
    if not found:
        return None

    def seconds(pair: BlockPair) -> float:
        return device.seconds(pair.entries_us(table) + (STEM_US if pair.before is None else 0) + GRAPH_US)

    boundaries = [boundary_number(space, name) for name in found[0].boundaries]
    device.board_s, repaired = 0.0, table
    for boundary, pairs in planned(space, boundaries, SHARE * profile_s, seconds, seed).items():
        repaired = PairEffects.fitted(table, boundary, device.pairs(pairs), seed).applied(space, repaired)
    rng = random.Random(seed + 100)
    unseen = [MeasuredNetwork(a, 0.0, device.network_us(a), (0.0, 0.0)) for a in (space.sample(rng) for _ in range(60))]
    share = device.board_s / profile_s
    return Repaired(found[0].where, before, tau_of(repaired, networks), tau_of(repaired, unseen), share, repaired)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("plant", [retiled_stem, slower_first_block])
@pytest.mark.parametrize("space", [DEMO, TABLE1], ids=["demo", "table1"])
def test_a_first_layer_that_slows_the_stem_is_found_and_repaired(space, plant, seed):
    """At a tenth of the board time at most: tau-b from 0.95 and less to 0.97 and more."""
    found = repaired(space, plant, seed)
    assert found is not None and found.where == "b1/0 e6"
    assert found.before < 0.95 and found.after >= 0.97 and found.others >= 0.97
    assert found.share <= 0.1
    assert not found.table.interactions  # the stem is every network's: the entries of block 1 hold it


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("space", [DEMO, TABLE1], ids=["demo", "table1"])
def test_layers_that_meet_at_a_boundary_become_interactions(space, seed):
    found = repaired(space, wide_meets_wide, seed)
    assert found is not None and found.where == "b2|b3 e6|e6"
    assert found.before < found.after and found.after >= 0.97 and found.others >= 0.97 and found.share <= 0.1
    met = {(b.block, b.last.expansion, b.first.expansion) for b in found.table.interactions}
    assert met == {(2, 6, 6)} and len(found.table.interactions) == 3 * 3
    device = PlantedDevice(space, wide_meets_wide, seed)
    for entry in found.table.interactions.values():
        assert entry.source == "measured" and entry.low <= entry.value <= entry.high
        assert entry.value == pytest.approx(0.6 * device.mean_us(3), rel=0.1)


@pytest.mark.parametrize("noise, odd", [(0.002, 0.02), (0.02, 0.02), (0.01, 0.1)])
@pytest.mark.parametrize("models", [16, 36])
def test_a_device_without_interactions_triggers_none(models, noise, odd):
    """Noise and oddities of single blocks spoil ranks too; of 10 devices none is named after what it has not."""
    for seed in range(10):
        device = PlantedDevice(DEMO, nothing, seed, noise, odd)
        assert suspects(DEMO, device.networks(device.table(), models), seed) == ()


def test_a_board_that_became_slower_triggers_none():
    device = PlantedDevice(DEMO, nothing)
    table = device.table()
    networks = [
        replace(n, measured_us=1.1 * n.measured_us + 300, halves_us=(1.1 * n.halves_us[0], 1.1 * n.halves_us[1]))
        for n in device.networks(table, 36)
    ]
    assert suspects(DEMO, networks) == ()


@pytest.mark.parametrize("boundary", range(len(DEMO.blocks) + 1))
def test_pairs_that_leave_each_other_alone_change_nothing(boundary):
    """Also where the board is slower than it was for the table."""
    device = PlantedDevice(DEMO, nothing, seed=3)
    table = device.table()
    pairs = list(pairs_across(DEMO, boundary, 0))
    measured = {pair: replace(e, value=1.05 * e.value) for pair, e in device.pairs(pairs).items()}
    found = PairEffects.fitted(table, boundary, measured, 0)
    again = found.applied(DEMO, table)
    assert found.named_us(DEMO) == {} and dict(again.entries) == dict(table.entries) and not again.interactions


def test_too_few_pairs_are_refused():
    device = PlantedDevice(DEMO, nothing)
    pairs = list(pairs_across(DEMO, 0, 0))[:7]
    with pytest.raises(CheckFailed, match=r"7 pairs across boundary 0 show nothing, 8 are needed.*--repair TIME"):
        PairEffects.fitted(device.table(), 0, device.pairs(pairs), 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(DEMO.blocks)), st.integers(0, 1000))
def test_the_first_pairs_have_every_choice(boundary, seed):
    pairs = list(pairs_across(DEMO, boundary, seed))
    assert len(set(pairs)) == len(pairs)
    first = pairs[: 2 * len(DEMO.choices)]
    if boundary > 0:
        assert {pair.last for pair in first} == set(DEMO.choices)
    if boundary < len(DEMO.blocks):
        assert {pair.first for pair in first} == set(DEMO.choices)
    if 0 < boundary < len(DEMO.blocks):
        assert len({feature for pair in first for feature in features_of(pair.last, pair.first)}) >= 3 * 3 + 6 + 6 + 25
    for pair in pairs:
        blocks = [subnet.block for subnet in pair.subnets]
        assert blocks == [b for b in (boundary, boundary + 1) if 1 <= b <= len(DEMO.blocks)]


def test_a_plan_keeps_its_budget_and_shares_it():
    plan = planned(DEMO, [0, 1], 10.0, lambda pair: 1.0 if pair.before is None else 1.5, 0)
    assert [len(plan[b]) for b in (0, 1)] == [4, 4]
    assert planned(DEMO, [2], 0.5, lambda pair: 1.0, 0) == {2: []}


def test_boundaries_have_names():
    names = [boundary_name(DEMO, i) for i in range(5)]
    assert names == ["stem|b1", "b1|b2", "b2|b3", "b3|b4", "b4|head"]
    assert [boundary_number(DEMO, name) for name in names] == list(range(5))


def test_a_layer_inside_a_block_names_no_boundary():
    def odd_middle(device, before, after) -> float:
        wide = after is not None and after.block == 3 and after.choices[1].expansion == 6
        return 300.0 if wide else 0.0

    device = PlantedDevice(DEMO, odd_middle)
    [found] = suspects(DEMO, device.networks(device.table(), 36))
    assert (found.where, found.boundaries) == ("b3/1 e6", ())
    assert "inside a block, measure longer" in suspect_text(found)


def test_suspects_and_repairs_read_as_one_line():
    device = PlantedDevice(DEMO, retiled_stem)
    [found, *_] = suspects(DEMO, device.networks(device.table(), 36))
    assert suspect_text(found).startswith(f"b1/0 e6 ({found.models} models): +")
    assert "measure blocks across stem|b1 (`hilnas lut latency --repair`)" in suspect_text(found)
    done = Repair(("stem|b1",), 20, 4.25, 5.0, {"stem|b1 e6": 146.2}, 0.844)
    assert (
        repair_text(done) == "20 pairs across stem|b1 in 4.2 s of board time: stem|b1 e6 +146 us; tau-b before 0.8440"
    )
    table = replace(device.table(), provenance={"space": DEMO.digest, REPAIRS: [plain(done)]})
    assert repairs_of(table) == (done,)
    with pytest.raises(TableError, match="repairs are not readable"):
        repairs_of(replace(table, provenance={REPAIRS: [{"boundaries": 1}]}))


def test_corrections_keep_the_interactions():
    """A repaired table is corrected by full models like any other, and its sums count the terms."""
    found = repaired(DEMO, wide_meets_wide, 0)
    assert found is not None
    device = PlantedDevice(DEMO, wide_meets_wide, 0)
    networks = device.networks(found.table, 24)
    corrected, *_ = correct(DEMO, found.table, networks)
    assert dict(corrected.interactions) == dict(found.table.interactions)
    blocks = BlockLatencies.of(found.table)
    architectures = [n.architecture for n in networks]
    assert blocks.sums(architectures) == pytest.approx([found.table.total(a) for a in architectures])
    without = BlockLatencies.of(replace(found.table, interactions={}))
    more = blocks.variances(architectures) - without.variances(architectures)
    interacting = [_interacts(a) for a in architectures]
    assert any(interacting) and ((more > 0) == interacting).all()
    predicted = ContextModel.fitted(DEMO, blocks, []).predict_us(architectures)
    assert predicted == pytest.approx(blocks.sums(architectures))


def _interacts(a: Architecture) -> bool:
    return (a.subnets[1].choices[-1].expansion, a.subnets[2].choices[0].expansion) == (6, 6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_effects_are_least_squares_of_the_right_columns(seed):
    rng = np.random.default_rng(seed)
    x = {f"x{i}": rng.integers(0, 2, 40).astype(float) for i in range(30)}
    base = np.column_stack([np.ones(40), rng.normal(size=40)])
    y = base @ [5.0, 2.0] + 10 * x["x3"] - 6 * x["x8"] + 0.1 * rng.normal(size=40)
    found = effects(y, base, x, np.ones(40), seed)
    assert {"x3", "x8"} <= set(found.names) and len(found.names) <= 3
    both = dict(zip(found.names, found.sizes.tolist(), strict=True))
    assert both["x3"] == pytest.approx(10, abs=0.3) and both["x8"] == pytest.approx(-6, abs=0.3)
    value, error = found.of({"x3": 1.0, "unknown": 7.0})
    assert value == both["x3"] and 0 < error < 0.2 and found.of({}) == (0.0, 0.0)


def test_of_two_opposite_columns_the_one_that_adds_is_named():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 2, 30).astype(float)
    columns = {"narrow": 1 - wide, "wide": wide}
    y = 4 * wide + 0.1 * rng.normal(size=30)
    for noise in (np.ones(30), rng.uniform(0.5, 2, 30)):
        assert effects(y, np.ones((30, 1)), columns, noise).names == ("wide",)


def test_noise_shows_no_effect():
    """Of 100 samples with 40 columns to choose from, about one passes."""
    passed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = {f"x{i}": rng.integers(0, 2, 24).astype(float) for i in range(40)}
        passed += bool(effects(rng.normal(size=24), np.ones((24, 1)), x, np.ones(24), seed).names)
    assert passed <= 3


def test_choices_have_their_parts():
    assert parts(Choice(7, 3)) == ("e3", "k7", "k7e3")
    assert list(meeting(Choice(7, 3), Choice(5, 6)))[:2] == ["e3|e6", "e3|k5"]
