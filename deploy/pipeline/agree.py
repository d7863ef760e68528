"""The stage that compares: do sums of block latencies rank full models as the board does?"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from deploy.compile.artifact import Artifact
from deploy.latency.active_record import chosen_networks
from deploy.latency.agreement import MeasuredNetwork, check_enough, comparison, failures, stratified, tau_b
from deploy.latency.correction import correct, held_out
from deploy.latency.gate import gate
from deploy.latency.interactions import repairs_of
from deploy.latency.key import check_device
from deploy.latency.overhead import outside_blocks_us
from deploy.latency.scatter import write_page
from deploy.latency.suspects import suspects
from deploy.latency.table import halves, summaries
from deploy.latency.versions import Lineage, before_repairs, find_version, save_version
from deploy.latency.watermark import watermark
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.models import compile_sample, compile_teacher
from deploy.run.records import AgreementRecord, AsMeasured, ExcludedModel
from deploy.run.schemes import SchemeRun, main_scheme_run
from hil.measurement import Measurement
from nas.space import Architecture
from nas.table import Table


def sampled_architectures(context: Context) -> list[Architecture]:
    """Distinct architectures over the range of the latency table's sums: the same for the same seed and table.

    A repaired table is compared with the models that showed what to repair.
    """
    tables = context.path / "tables"
    table = Table.load(tables / "latency.parquet")
    table.check_origin({"key": context.keys["profile"]})
    table = before_repairs(table, tables)
    rng = random.Random(f"{context.experiment.seed}/agree")
    return stratified(context.space, table, context.experiment.agreement.models, rng)


def agree(context: Context) -> Iterator[Progress]:
    """Measure sampled full models, compare with the table's sums, correct the table: agreement.json.

    Models that fail on the board are left out and named. Raises `ModelError` if too few are left.
    """
    table = Table.load(context.path / "tables" / "latency.parquet")
    architectures = sampled_architectures(context)
    teacher = compile_teacher(context)

    def on_its_device(measurement: Measurement) -> None:
        check_device(table, measurement.conditions)

    main = main_scheme_run(context)
    _, measurements = yield from measure_samples(context, main, architectures, [teacher], on_its_device)
    names = {f"sample{i:03d}": architecture for i, architecture in enumerate(architectures)}
    failed = {name: reason for name, reason in failures(measurements).items() if name in names}
    check_enough(len(names), failed)
    well = [m for m in measurements if m.model not in failed]
    medians, split, outside_us = summaries(well), halves(well), outside_blocks_us(table)
    samples = [
        MeasuredNetwork(a, table.total(a) + outside_us, medians[name].median_us, split[name])
        for name, a in names.items()
        if name not in failed
    ]
    cost, seed, top = _other_cost(context), context.experiment.seed, context.experiment.agreement.top
    compared = comparison(samples, cost, seed, top)  # before the correction: its errors are the clearer ones
    more = [
        s for s in chosen_networks(context.path, context.keys["profile"]) if s.architecture not in set(architectures)
    ]
    corrected, correction, feedback = correct(context.space, table, samples, more)
    save_version(corrected, context.path / "tables", "latency-corrected", "corrected", [Lineage.of(table).version])
    left_out = held_out(context.space, table, samples, more).tolist() if feedback else []
    predicted = [replace(s, additive_us=us) for s, us in zip(samples, left_out, strict=bool(feedback))]
    record = AgreementRecord(
        agreement=compared.agreement,
        regret=compared.regret,
        offenders=compared.offenders,
        samples=compared.samples,
        as_measured=_as_measured(context, table, samples),
        correction=correction,
        with_feedback=comparison(predicted, cost, seed, top) if feedback else None,
        excluded=tuple(ExcludedModel(str(names[name]), reason) for name, reason in failed.items()),
        conditions=well[0].conditions,
        teacher_us=medians["teacher"].median_us,
        gate=gate(compared.agreement, correction, context.experiment.agreement.tau, context.tau),
        suspects=suspects(context.space, samples, seed),
        repairs=repairs_of(table),
    )
    write_page(context.path / "agreement.html", record, watermark(record.conditions))
    record.write(context.path / AgreementRecord.FILE)


def measure_samples(
    context: Context,
    of: SchemeRun,
    architectures: Sequence[Architecture],
    others: Sequence[Artifact] = (),
    check: Callable[[Measurement], None] | None = None,
) -> Generator[Progress, None, tuple[list[Artifact], list[Measurement]]]:
    """The architectures' files, sample000 and on, and all measurements of them and of `others`, run together.

    `check` may refuse a measurement as it comes.
    """
    settings = protocol(context.experiment.agreement.measuring)
    count, stage = len(architectures), of.stage("agree")
    total = count + (count + len(others)) * settings.rounds
    samples = []
    for i, architecture in enumerate(architectures):
        samples.append(compile_sample(context, architecture, f"sample{i:03d}", of))
        yield Progress(stage, i + 1, total, f"{of.prefix}compiled {i + 1}")
    measurements = yield from of.measure(context, [*others, *samples], settings, "agree", done=count, check=check)
    return samples, measurements


def _as_measured(context: Context, table: Table, samples: Sequence[MeasuredNetwork]) -> AsMeasured | None:
    """tau-b of the version in which no block was predicted from others; None where not all were measured."""
    lineage = Lineage.of(before_repairs(table, context.path / "tables"))
    if lineage.how != "predicted" or not lineage.parents:
        return None
    before = find_version(context.path / "tables", lineage.parents[0])
    sums = np.array([before.total(s.architecture) for s in samples])
    return AsMeasured(lineage.parents[0], tau_b(sums, np.array([s.measured_us for s in samples])))


def _other_cost(context: Context) -> Table:
    """What a model costs besides latency: its NSR, or where there is no such table its size."""
    tables = context.path / "tables"
    nsr = tables / "nsr.parquet"
    return Table.load(nsr if nsr.exists() else tables / "size.parquet")
