"""What a graph pays besides its block: solved from made-up times, and the graphs that are timed answer rightly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.compile.block_forms import random_reference, values_at
from deploy.formats.tflite.read import parse, read
from deploy.formats.tflite.writer import write
from deploy.latency import overhead
from deploy.latency.estimates import half_width, weighted_sum
from deploy.latency.overhead import (
    FLOOR_US,
    OverheadRecord,
    copies,
    graphs,
    outside_blocks_us,
    solved,
)
from deploy.latency.table import latency_table, measured_as
from deploy.targets.inspection import inspect_model
from deploy.targets.precision import executed_as
from hil.stats import LatencySummary
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.networks.segmenter import Head
from nas.quant import simulate, splice
from nas.quant.integer_graph import IntegerGraph
from nas.space import SearchSpace, Subnet
from nas.table import Table
from tests.deploy.networks import block_of, interpret, quantized_subnet, space

SIZE = (48, 64)
BLOCKS = 4
TIMES = st.floats(0, 5000)


@cache
def whole() -> IntegerGraph:
    return random_reference(space("demo"), SIZE, head=Head(16, (2, 4)))


def summary(median_us: float, half_us: float = 0.0, n: int = 40) -> LatencySummary:
    ends = (median_us - half_us, median_us + half_us)
    return LatencySummary(median_us, median_us, median_us, 0.0, ends, n)


def few_bits() -> SearchSpace:
    return replace(space("demo"), bits=(4, 6, 8))


# The graphs


@pytest.mark.parametrize("count", [1, 3])
def test_copies_answer_what_they_read(count):
    graph = copies((5, 7, 12), count)
    q = np.random.default_rng(count).integers(-128, 128, (1, 5, 7, 12)).astype(np.int8)
    assert len(graph.operators) == count
    np.testing.assert_array_equal(interpret(write(graph), q), q)
    assert torch.equal(simulate.run(graph, torch.from_numpy(q).float()), torch.from_numpy(q).float())


def test_stem_blocks_and_head_are_the_whole_model():
    reference, image = whole(), torch.rand(1, 3, *SIZE) * 2 - 1
    q = simulate.quantize(image, reference.tensors[reference.input])
    expected = simulate.run(reference, q)
    parts = graphs(reference)
    chain = [block_of(reference, block) for block in range(1, BLOCKS + 1)]
    for part in (parts["overhead-stem"], *chain, parts["overhead-head"]):
        q = simulate.run(part, q)
    assert torch.equal(q, expected)


def test_every_map_between_blocks_is_copied_once_a_shape():
    reference = whole()
    maps = splice.boundary_maps(reference)
    assert [x.shape for x in maps] == [(24, 32, 16), (12, 16, 24), (6, 8, 32), (6, 8, 48), (6, 8, 64)]
    found = graphs(reference)
    assert len(found) == 3 + 2 * len(maps)
    flat = random_reference(replace(space("demo"), blocks=(space("demo").blocks[3],) * 2), SIZE, head=Head(16, (2,)))
    assert len(graphs(flat)) == 3 + 2 * 2, "both blocks leave maps of one shape"


def test_the_files_answer_as_they_should(tmp_path):
    reference, image = whole(), torch.rand(1, 3, *SIZE) * 2 - 1
    written = list(overhead.compiled(reference, image, tmp_path, "key"))
    assert [artifact.name for artifact in written] == list(graphs(reference))
    for artifact in written:
        source = read(artifact.model)
        shape = source.tensors[source.inputs[0]].shape
        q = np.frombuffer(artifact.input.read_bytes(), np.int8).reshape(shape)
        assert interpret(artifact.model.read_bytes(), q).tobytes() == artifact.expected.read_bytes()
    again = list(overhead.compiled(reference, image, tmp_path / "again", "key"))
    assert [a.model.read_bytes() for a in again] == [a.model.read_bytes() for a in written], "the store knows them"


def test_the_head_reads_what_the_last_block_leaves():
    reference, image = whole(), torch.rand(1, 3, *SIZE) * 2 - 1
    head = splice.after_blocks(reference)
    assert head.input == splice.boundary_maps(reference)[-1].name
    assert values_at(reference, head.input, image).shape == (1, 64, 6, 8)
    with pytest.raises(ConfigError, match="no block b1"):
        splice.after_blocks(reference.until("stem"))


# The equations


def times_of(
    empty: float, ends: Sequence[float], copy: Sequence[float], stem: float, head: float
) -> Mapping[str, float]:
    """What the graphs take where the module's equations hold."""
    found = {"overhead-empty": empty, "overhead-stem": empty + stem + ends[0] / 2}
    found["overhead-head"] = empty + ends[-1] / 2 + head
    for boundary, at, each in zip(splice.boundary_maps(whole()), ends, copy, strict=True):
        shape = "x".join(map(str, boundary.shape))
        found |= {f"overhead-{shape}-{n}": empty + at + n * each for n in (1, 3)}
    return found


@settings(max_examples=50, deadline=None)
@given(st.tuples(TIMES, TIMES, TIMES), st.tuples(*[TIMES] * 5), st.tuples(*[TIMES] * 5), st.data())
def test_made_up_times_give_their_overhead_back(single, ends, copy, data):
    empty, stem, head = single
    found = solved({name: summary(t) for name, t in times_of(empty, ends, copy, stem, head).items()}, whole())
    edges = [(a + b) / 2 for a, b in pairwise(ends)]
    assert [io.value for io in found.io_us] == pytest.approx(edges, abs=1e-6)
    assert (found.empty_us.value, found.stem_us.value, found.head_us.value) == pytest.approx(
        (empty, stem, head), abs=1e-6
    )
    work = data.draw(st.lists(st.floats(FLOOR_US, 5000), min_size=BLOCKS, max_size=BLOCKS))
    alone = [summary(empty + edge + w, 3.0) for edge, w in zip(edges, work, strict=True)]
    entries = [found.work(time, block) for block, time in enumerate(alone, start=1)]
    model_us = empty + stem + sum(work) + head
    assert sum(entry.value for entry in entries) + found.outside_blocks_us == pytest.approx(model_us, abs=1e-6)


def test_half_widths_add_as_their_squares_do():
    one, other = replace(known(5, 3), n=7), known(2, 4)
    assert weighted_sum((1, one), (-1, other)) == replace(known(3, 5), n=7)
    assert weighted_sum((0.5, one), (0.5, other)) == replace(known(3.5, 2.5), n=7)
    lopsided = Estimate(5.0, None, 4.0, 10.0, 40, "measured")
    assert weighted_sum((1, lopsided)) == known(5, 3) and half_width(lopsided) == 3


def test_noise_makes_no_overhead_negative():
    times = {name: summary(10.0) for name in graphs(whole())}
    found = solved(times | {"overhead-stem": summary(8.0)}, whole())
    assert found.stem_us.value == 0 and found.head_us.value == 0 and {io.value for io in found.io_us} == {0}
    assert found.empty_us.value == 10 and found.empty_us.n == 40


def known(us: float, half_us: float) -> Estimate:
    return Estimate(us, None, us - half_us, us + half_us, 40, "measured")


def known_overhead() -> OverheadRecord:
    return OverheadRecord(known(2, 0.5), (known(1, 0.5), known(0, 0.5)), known(50, 1), known(300, 2))


def test_an_entry_keeps_its_interval_and_stays_above_the_floor():
    found = known_overhead()
    assert found.outside_blocks_us == 352
    lopsided = replace(summary(100.0), ci95_us=(98.0, 105.0))
    assert found.work(lopsided, 1) == Estimate(97.0, None, 95.0, 102.0, 40, "measured")
    assert found.work(lopsided, 2) == Estimate(98.0, None, 96.0, 103.0, 40, "measured")
    assert found.work(summary(2.0, 1.0), 1) == Estimate(FLOOR_US, None, FLOOR_US - 1, FLOOR_US + 1, 40, "measured")


def table_with(provenance: Mapping[str, Any]) -> Table:
    return Table("latency", "us", {Subnet.parse("b1_k3e3_w8"): Estimate.exact(1)}, provenance)


def test_a_saved_table_has_its_overhead(tmp_path):
    found = known_overhead()
    table_with({"overhead": found.to_json()}).save(tmp_path / "latency.parquet")
    again = Table.load(tmp_path / "latency.parquet")
    assert OverheadRecord.of(again) == found and outside_blocks_us(again) == 352
    assert outside_blocks_us(replace(again, provenance={})) == 0
    found.write(tmp_path / "overhead.json")
    assert OverheadRecord.read(tmp_path / "overhead.json") == found


FORMER = {
    "empty_us": {"us": 2, "half_us": 0.5},
    "edges_us": [{"us": 1, "half_us": 0.5}, {"us": 0, "half_us": 0.5}],
    "stem_us": {"us": 50, "half_us": 1},
    "head_us": {"us": 300, "half_us": 2},
    "n": 40,
}


def test_a_table_of_an_earlier_version_has_its_overhead():
    assert OverheadRecord.of(table_with({"constants": FORMER})) == known_overhead()
    assert outside_blocks_us(table_with({"constants": FORMER})) == 352
    with pytest.raises(TableError, match="profile again"):
        OverheadRecord.of(table_with({"constants": FORMER | {"stem_us": {"us": float("nan"), "half_us": 1}}}))


RECORD = known_overhead().to_json()


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"overhead": 3},
        {"overhead": {}},
        {"overhead": RECORD | {"n": 40}},
        {"overhead": RECORD | {"schema_version": 0}},
        {"overhead": RECORD | {"io_us": 1}},
        {"overhead": RECORD | {"empty_us": RECORD["empty_us"] | {"value": float("nan")}}},
        {"overhead": {name: value for name, value in RECORD.items() if name != "head_us"}},
        {"constants": {}},
        {"constants": 3},
    ],
)
def test_a_table_without_a_readable_overhead_is_refused(damaged):
    with pytest.raises(TableError, match="profile again") as refused:
        OverheadRecord.of(table_with(json.loads(json.dumps(damaged))))
    assert "\n" not in str(refused.value)


# Bits that run as INT8


def test_widths_that_run_alike_have_one_entry():
    of = few_bits()
    assert measured_as(of, Subnet.parse("b1_k3e3-k5e6_w4")) == Subnet.parse("b1_k3e3-k5e6_w8")
    assert measured_as(replace(of, bits=(4, 6)), Subnet.parse("b1_k3e3-k5e6_w4")).bits == 6
    timed = [subnet for subnet in of.all_subnets() if measured_as(of, subnet) == subnet]
    assert len(timed) == of.count() / 3 and {subnet.bits for subnet in timed} == {8}
    measured = {subnet: Estimate(float(i), None, i - 1.0, i + 1.0, 40, "measured") for i, subnet in enumerate(timed)}
    table = latency_table(of, measured, {"form": "isolated"})
    table.check(of)
    for subnet in of.all_subnets():
        assert table.entries[subnet] is measured[replace(subnet, bits=8)]
    assert table.provenance == {"space": of.digest, "form": "isolated"}


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_the_files_of_every_width_run_as_is_said(bits):
    subnet = Subnet.parse(f"b1_k3e3-k5e6_w{bits}")
    graph = quantized_subnet(space("demo"), subnet, (12, 16))
    found = inspect_model(parse(write(graph, {"requested_bits": bits}), str(subnet)))
    assert found.executed_bits == (executed_as(bits),) == (8,)
