"""Blocks timed in context, on a run's own networks: the differences that were meant, and nothing measured twice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.compile.block_forms import FORMS
from deploy.formats.tflite.writer import write
from deploy.latency import in_context
from deploy.latency.estimates import half_width
from deploy.latency.in_context import REFERENCE, Form, measure_in_context, reference_architecture
from deploy.latency.overhead import FLOOR_US, PROVENANCE, OverheadRecord
from deploy.pipeline.profiling import PARITY, profile
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.models import quantized
from deploy.run.settings.deployment import Profile
from deploy.run.weights import of_run
from hil.errors import UsageError
from hil.measurement import Measurement
from hil.stats import summarize
from hil.store import Store
from nas.estimate import Estimate
from nas.quant.integer_graph import QConv
from nas.space import SearchSpace, Subnet
from nas.table import Table
from tests.deploy.networks import block_of
from tests.deploy.tiny_experiment import REPOSITORY, Finished, finished_run, record, stored

IN_CONTEXT: tuple[Form, ...] = ("bounded", "exchanged")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture
def context(finished: Finished, tmp_path: Path) -> Iterator[Context]:
    experiment, space = load_experiment(finished.config, Overrides())
    with Run(finished.copy(tmp_path)) as run:
        yield Context(experiment, space, run, REPOSITORY / "boards.toml")


def in_form(context: Context, form: Form) -> Context:
    measuring = context.experiment.profile
    profiled = Profile(measuring.warmup_runs, measuring.runs, measuring.rounds, form)
    return Context(replace(context.experiment, profile=profiled), context.space, context.run, context.boards_file)


def entries_of(
    context: Context, subnets: Iterable[Subnet], form: Form
) -> tuple[dict[Subnet, Estimate], list[Progress]]:
    """What the generator returns, and what it yields."""
    steps, said = measure_in_context(context, subnets, form), list[Progress]()
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            return end.value, said


def times_of(measurements: Iterable[Measurement], name: str) -> tuple[float, float]:
    """The median of a model's samples and half the width of its interval, microseconds."""
    found = summarize([us for m in measurements if m.model == name for us in m.latencies_us])
    return found.median_us, (found.ci95_us[1] - found.ci95_us[0]) / 2


def some_of(space: SearchSpace, block: int) -> list[Subnet]:
    return [subnet for subnet in space.subnets(block) if subnet.choices[0].expansion == 2]


@pytest.mark.parametrize("form", IN_CONTEXT)
def test_an_entry_is_the_difference_that_was_meant(context, form):
    wanted = some_of(context.space, 2)
    before = len(stored(context.path))
    entries, said = entries_of(context, wanted, form)
    assert list(entries) == wanted and said[-1].done == said[-1].total
    with Store(context.path / "measurements.sqlite") as store:
        rows = list(store.all())
    fresh = rows[before:]
    assert all(m.parity is not None and m.parity.mismatched == 0 for m in fresh)
    timed = [m for m in fresh if m.model.endswith(form) or m.model == REFERENCE]
    assert {m.model for m in timed} == {f"{s}.{form}" for s in wanted if s.bits == 8} | {REFERENCE}
    base_us, base_half = times_of(timed, REFERENCE)
    for subnet in wanted:
        us, half = times_of(timed, f"{replace(subnet, bits=8)}.{form}")
        expected, widths = us - base_us, [half, base_half]
        if form == "exchanged":
            own = reference_architecture(context.space).subnets[1]
            table = OverheadRecord.of(Table.load(context.path / "tables" / "latency.parquet"))
            empty, io = table.empty_us, table.io_us[1]
            board_us, own_half = times_of(rows, str(own))
            expected += board_us - empty.value - io.value
            widths += [own_half, half_width(empty), half_width(io)]
        entry = entries[subnet]
        assert entry.source == "measured" and entry.n == context.experiment.profile.runs
        assert entry.value == pytest.approx(max(expected, FLOOR_US))
        half = math.sqrt(sum(width**2 for width in widths))
        assert (entry.high - entry.value, entry.value - entry.low) == pytest.approx((half, half))


@pytest.mark.parametrize("form", IN_CONTEXT)
def test_a_second_time_nothing_is_measured(context, form, monkeypatch):
    monkeypatch.setattr(in_context, "BATCH", 2)
    wanted = some_of(context.space, 2)
    steps = measure_in_context(context, wanted, form)
    next(step for step in steps if step.text.startswith(form))
    steps.close()  # as if killed: the first batch is not over
    rows = stored(context.path)
    first, _ = entries_of(context, wanted, form)
    after = stored(context.path)
    assert after[: len(rows)] == rows and len(after) > len(rows)
    second, _ = entries_of(context, wanted, form)
    assert second == first and stored(context.path) == after
    assert not (context.path / "in-context").exists(), "a batch's files are removed"


@pytest.mark.parametrize("form", IN_CONTEXT)
def test_the_table_of_a_form(context, form):
    folder, before = context.path, len(stored(context.path))
    steps = list(profile(in_form(context, form)))
    assert {step.stage for step in steps} == {"profile"}
    table = Table.load(folder / "tables" / "latency.parquet")
    table.check(context.space)
    assert {entry.source for entry in table.entries.values()} == {"measured"}
    assert table.provenance["form"] == form and OverheadRecord.of(table).empty_us.n == context.experiment.profile.runs
    assert record(folder / "tables" / OverheadRecord.FILE) == table.provenance[PROVENANCE]
    for subnet, entry in table.entries.items():
        assert entry == table.entries[replace(subnet, bits=8)]
    counts = record(folder / "profile.json")
    subnets = context.space.count()
    assert (counts["compiled"], counts["measured"], counts["exact_parity"]) == (subnets, subnets / 2, subnets)
    with Store(folder / "measurements.sqlite") as store:
        fresh = list(store.all())[before:]
    alone = [m for m in fresh if "." not in m.model and m.model.startswith("b")]
    assert all(len(m.latencies_us) == PARITY.runs for m in alone), "isolated files are run for their answers"


def test_the_exchanged_reference_is_the_reference(context):
    """But for its block's ranges, which are those of the teacher's maps and not of the reference's."""
    architecture = reference_architecture(context.space)
    assert [str(subnet) for subnet in architecture.subnets] == ["b1_k3e6_w8", "b2_k3e6-k3e6_w8"]
    reference = quantized(context, architecture)
    ((_, alone),) = of_run(context, context.experiment.quantization.scheme).graphs([architecture.subnets[0]])
    exchange = FORMS["exchanged"].compose(alone, reference)
    assert exchange.macs == reference.macs and [op.name for op in exchange.operators] == [
        op.name for op in reference.operators
    ]
    own = block_of(reference, 1)
    assert write(FORMS["exchanged"].compose(own, reference)) == write(reference)
    pairs = zip(own.operators, alone.operators, strict=True)
    same = [np.mean(a.weight == b.weight) for a, b in pairs if isinstance(a, QConv) and isinstance(b, QConv)]
    assert np.mean(same) > 0.5, "they are the supernets' weights, not random ones"


def test_a_run_without_its_networks_is_refused(context):
    (context.path / "supernets.pt").unlink()
    with pytest.raises(UsageError, match=r"supernets\.pt: no such file"):
        entries_of(context, some_of(context.space, 2), "bounded")
