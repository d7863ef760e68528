"""Stages that decide: do the tables agree with whole models, and which architectures are worth training?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deploy.compile import bits_outside_blocks, quantize
from deploy.context import Context, protocol
from deploy.latency.agreement import Sample, check_enough, comparison, failures, stratified, tau_b
from deploy.latency.constants import around_blocks_us
from deploy.latency.feedback import correct, held_out
from deploy.latency.gate import Gate, gate
from deploy.latency.key import on_its_device
from deploy.latency.on_board import whole_models
from deploy.latency.scatter import write_page
from deploy.latency.table import halves, summaries
from deploy.latency.versions import Lineage, find_version, save_version
from deploy.predictor import Fitted, fitted
from deploy.report import watermark
from deploy.run import Progress, write_json
from deploy.sides import main_side, other_side
from deploy.whole_models import compile_sample, compile_teacher
from hil.measurement import Measurement
from nas.search.front import Front, front
from nas.search.union import Pick, Side, best_within, union_front
from nas.space import Architecture
from nas.table import Table

RECORDS = {"agree": "agreement", "search": "search"}
"""Of the stages whose record tells the gate's verdict."""


def sampled_architectures(context: Context) -> list[Architecture]:
    """Distinct architectures over the range of the latency table's sums: the same for the same seed and table."""
    table = Table.load(context.path / "tables" / "latency.parquet")
    table.check_origin({"key": context.keys["profile"]})
    rng = random.Random(f"{context.experiment.seed}/agree")
    return stratified(context.space, table, context.experiment.agreement.models, rng)


def agree(context: Context) -> Iterator[Progress]:
    """Measure whole sampled models, compare with the table's sums, correct the table: agreement.json.

    Models that fail on the board are left out and named. Raises `ModelError` if too few are left.
    """
    settings = protocol(context.experiment.agreement.measuring)
    table = Table.load(context.path / "tables" / "latency.parquet")
    architectures = sampled_architectures(context)
    total = len(architectures) + (len(architectures) + 1) * settings.rounds
    artifacts = [compile_teacher(context)]
    for i, architecture in enumerate(architectures):
        artifacts.append(compile_sample(context, architecture, f"sample{i:03d}"))
        yield Progress("agree", i + 1, total, f"compiled {i + 1}")
    measurements: list[Measurement] = []
    for done in on_its_device(table, context.measured([a.job() for a in artifacts], settings)):
        measurements.append(done)
        yield Progress("agree", len(architectures) + len(measurements), total, f"measured {done.model}")

    names = {f"sample{i:03d}": architecture for i, architecture in enumerate(architectures)}
    failed = {name: reason for name, reason in failures(measurements).items() if name in names}
    check_enough(len(names), failed)
    well = [m for m in measurements if m.model not in failed]
    medians, split, around_us = summaries(well), halves(well), around_blocks_us(table)
    samples = [
        Sample(a, table.total(a) + around_us, medians[name].median_us, split[name])
        for name, a in names.items()
        if name not in failed
    ]
    cost, seed, top = _other_cost(context), context.experiment.seed, context.experiment.agreement.top
    compared = comparison(samples, cost, seed, top)  # before the correction: its errors are the clearer ones
    more = [s for s in whole_models(context.path, context.keys["profile"]) if s.architecture not in set(architectures)]
    corrected, correction, feedback = correct(context.space, table, samples, more)
    save_version(corrected, context.path / "tables", "latency-corrected", "corrected", [Lineage.of(table).version])
    left_out = held_out(context.space, table, samples, more).tolist() if feedback else []
    predicted = [replace(s, additive_us=us) for s, us in zip(samples, left_out, strict=bool(feedback))]
    record: dict[str, Any] = {
        **compared,
        "as_measured": _as_measured(context, Lineage.of(table), samples),
        "correction": correction.record(),
        "with_feedback": comparison(predicted, cost, seed, top) if feedback else None,
        "excluded": [{"subnet": str(names[name]), "reason": reason} for name, reason in failed.items()],
        "conditions": well[0].conditions.to_json(),
        "teacher_us": medians["teacher"].median_us,
    }
    record["gate"] = gate(record, context.experiment.agreement.tau, context.tau).record()
    write_page(context.path / "agreement.html", record, watermark(record["conditions"]))
    write_json(context.path / "agreement.json", record)


def _as_measured(context: Context, lineage: Lineage, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """tau-b of the table before blocks were told from each other; None where not all were measured."""
    if lineage.how != "regressed" or not lineage.parents:
        return None
    before = find_version(context.path / "tables", lineage.parents[0])
    sums = np.array([before.total(s.architecture) for s in samples])
    return {"version": lineage.parents[0], "tau_b": tau_b(sums, np.array([s.measured_us for s in samples]))}


def _other_cost(context: Context) -> Table:
    """What a model costs besides latency: its NSR, or where there is no such table its size."""
    tables = context.path / "tables"
    nsr = tables / "nsr.parquet"
    return Table.load(nsr if nsr.exists() else tables / "size.parquet")


def gate_of(context: Context) -> Gate:
    """The gate for the run's latency table, by the present threshold."""
    return gate(context.record("agreement"), context.experiment.agreement.tau, context.tau)


def settle(context: Context, stage: str) -> None:
    """The gate's present verdict, in the record of a stage that is done: another threshold redoes no stage.

    Raises `CheckFailed` for a search that was done under a lower threshold than the present one.
    """
    if stage not in RECORDS:
        return
    verdict, record = gate_of(context), context.record(RECORDS[stage])
    if stage == "search":
        verdict.check()
    if record.get("gate") != verdict.record():
        write_json(context.path / f"{RECORDS[stage]}.json", record | {"gate": verdict.record()})


def search(context: Context) -> Iterator[Progress]:
    """The exact front over NSR, size and corrected latency; the best architecture under each budget: search.json.

    With alternatives it is the union of the schemes' fronts, and every entry says its scheme; the gate judges the main
    one. Raises `CheckFailed` where the latency table is below the gate.
    """
    verdict = gate_of(context)
    verdict.check()
    judged = context.record("agreement")
    correction, teacher_us = judged["correction"], judged["teacher_us"]
    assert isinstance(correction, dict) and isinstance(teacher_us, float)  # noqa: S101 (our own record)
    graph = quantize(context.teacher, [context.calibration], context.experiment.data.size)
    around_us = correction["constant_us"]
    around_bits = bits_outside_blocks(graph)
    schemes = context.experiment.quantization
    sides = [main_side(context.path, str(schemes.own), context.keys, {"size": around_bits, "latency": around_us})]
    sides += [other_side(context.path, scheme, context.keys, around_bits) for scheme in schemes.others]
    fit = (yield from fitted(context)) if context.experiment.predictor.objective else None
    found = []
    for i, budget in enumerate(context.experiment.budgets):
        within = {}
        if budget.size is not None:
            within["size"] = budget.size * graph.size_bits
        if budget.latency is not None:
            within["latency"] = budget.latency * teacher_us
        pick = _predicted(context, fit, sides[0]) if fit else Front.best
        side, best, length = best_within(context.space, sides, within, f"budget '{budget.name}': ", pick)
        found.append(
            {
                "name": budget.name,
                "subnet": str(best),
                "nsr": side.total("nsr", best),
                "size_bits": side.total("size", best),
                "predicted_us": side.total("latency", best),
                "front": length,
                **_scheme(context, side.name),
            }
        )
        yield Progress("search", i + 1, len(context.experiment.budgets), f"{budget.name}: {best}")
    fronts = [front(side.candidates(context.space, ("nsr", "latency"))) for side in sides]
    write_json(
        context.path / "search.json",
        {
            "found": found,
            "gate": verdict.record(),
            "teacher_size_bits": graph.size_bits,
            "around": {"size_bits": around_bits, "latency_us": around_us},
            "front": [
                {
                    "subnet": str(point.architecture),
                    "nsr": point.costs[0],
                    "latency_us": point.costs[1],
                    **_scheme(context, point.side),
                }
                for point in union_front(sides, fronts)
            ],
            **({"schemes": [side.name for side in sides]} if schemes.others else {}),
        },
    )


def _scheme(context: Context, name: str) -> dict[str, str]:
    """What an entry says of its scheme: nothing where there is one for all."""
    return {"scheme": name} if context.experiment.quantization.others else {}


def _predicted(context: Context, fit: Fitted, side: Side) -> Pick:
    """The accuracy predictor's choice instead of the least NSR sum."""
    return lambda _, limits: fit.search(context, [side.tables[name] for name in limits], limits)[0]
