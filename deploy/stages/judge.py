"""Stages that decide: do the tables agree with whole models, and which architectures are worth training?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from deploy.compile import Artifact, bits_outside_blocks, model_metadata, quantize, save_model
from deploy.context import Context, protocol
from deploy.latency.agreement import Sample, agreement
from deploy.latency.feedback import correct
from deploy.latency.table import summaries
from deploy.predictor import fitted
from deploy.run import Progress, write_json
from deploy.stages.networks import assembled
from hil.measurement import Measurement
from nas.blocks import recalibrate
from nas.search.budgets import limits_within
from nas.search.front import exact_front
from nas.space import Architecture
from nas.table import Table


def sampled_architectures(context: Context) -> list[Architecture]:
    """Distinct random architectures, the same ones for the same seed."""
    rng = random.Random(f"{context.experiment.seed}/agree")
    drawn: dict[Architecture, None] = {}
    for _ in range(50 * context.experiment.agreement.models):
        drawn[context.space.sample(rng)] = None
        if len(drawn) == context.experiment.agreement.models:
            break
    return list(drawn)


def compile_teacher(context: Context) -> Artifact:
    """The INT8 teacher, the yardstick of every budget."""
    graph = quantize(
        context.teacher,
        [context.calibration],
        context.experiment.data.size,
        scheme=context.experiment.quantization.scheme,
        resize_factors=context.resize_factors,
    )
    metadata = model_metadata(graph, "teacher", context.keys["agree"])
    artifact = Artifact.at(context.path / "models", "teacher")
    return save_model(graph, context.evaluation[:1], artifact, metadata, context.target)


def compile_sample(context: Context, architecture: Architecture, name: str) -> Artifact:
    """A whole model from the supernets' blocks: quantized, compiled, with its golden pair."""
    model = assembled(context, architecture)
    recalibrate(model, context.calibration)
    graph = quantize(
        model,
        [context.calibration],
        context.experiment.data.size,
        architecture=architecture,
        scheme=context.experiment.quantization.scheme,
        resize_factors=context.resize_factors,
    )
    metadata = model_metadata(graph, str(architecture), context.keys["agree"])
    artifact = Artifact.at(context.path / "models", name)
    return save_model(graph, context.evaluation[:1], artifact, metadata, context.target)


def agree(context: Context) -> Iterator[Progress]:
    """Measure whole sampled models, compare with the table's sums, correct the table: agreement.json."""
    settings = protocol(context.experiment.agreement.measuring)
    architectures = sampled_architectures(context)
    total = len(architectures) + (len(architectures) + 1) * settings.rounds
    artifacts = [compile_teacher(context)]
    for i, architecture in enumerate(architectures):
        artifacts.append(compile_sample(context, architecture, f"sample{i:03d}"))
        yield Progress("agree", i + 1, total, f"compiled {i + 1}")
    measurements: list[Measurement] = []
    for done in context.measured([a.job() for a in artifacts], settings):
        measurements.append(done)
        yield Progress("agree", len(architectures) + len(measurements), total, f"measured {done.model}")

    medians = summaries(measurements)
    table = Table.load(context.path / "tables" / "latency.parquet")
    samples = [
        Sample(a, table.total(a), medians[f"sample{i:03d}"].median_us, _halves(measurements, f"sample{i:03d}"))
        for i, a in enumerate(architectures)
    ]
    corrected, correction = correct(table, samples)
    corrected.save(context.path / "tables" / "latency-corrected.parquet")
    write_json(
        context.path / "agreement.json",
        {
            "agreement": agreement(samples, context.experiment.seed).record(),
            "correction": correction.record(),
            "conditions": measurements[0].conditions.to_json(),
            "teacher_us": medians["teacher"].median_us,
            "samples": [
                {"subnet": str(s.architecture), "additive_us": s.additive_us, "measured_us": s.measured_us}
                for s in samples
            ],
        },
    )


def _halves(measurements: Sequence[Measurement], name: str) -> tuple[float, float]:
    """Medians of the even and the odd rounds, or of even and odd runs where there is one round."""
    rounds = [np.array(m.latencies_us) for m in sorted(measurements, key=lambda m: m.round) if m.model == name]
    pair = (
        (np.concatenate(rounds[::2]), np.concatenate(rounds[1::2]))
        if len(rounds) > 1
        else (rounds[0][::2], rounds[0][1::2])
    )
    return float(np.median(pair[0])), float(np.median(pair[1]))


def search(context: Context) -> Iterator[Progress]:
    """The exact front over NSR, size and corrected latency; the best architecture under each budget: search.json."""
    tables = context.path / "tables"
    nsr, size, latency = (Table.load(tables / f"{n}.parquet") for n in ("nsr", "size", "latency-corrected"))
    nsr.check_origin({"key": context.keys["tables"], "checkpoint": context.supernets_digest})
    latency.check_origin({"key": context.keys["profile"]})
    judged = context.record("agreement")
    correction, teacher_us = judged["correction"], judged["teacher_us"]
    assert isinstance(correction, dict) and isinstance(teacher_us, float)  # noqa: S101 (our own record)
    graph = quantize(context.teacher, [context.calibration], context.experiment.data.size)
    around_us = correction["constant_us"]
    around_bits = bits_outside_blocks(graph)
    around = {"size": around_bits, "latency": around_us}
    fit = (yield from fitted(context)) if context.experiment.predictor.objective else None
    found = []
    for i, budget in enumerate(context.experiment.budgets):
        within, used = {}, [nsr]
        if budget.size is not None:
            within["size"], used = budget.size * graph.size_bits, [*used, size]
        if budget.latency is not None:
            within["latency"], used = budget.latency * teacher_us, [*used, latency]
        front = exact_front(context.space, used)
        limits = limits_within(front, within, around, f"budget '{budget.name}': ")
        best = fit.search(context, used[1:], limits)[0] if fit else front.best(limits)
        found.append(
            {
                "name": budget.name,
                "subnet": str(best),
                "nsr": nsr.total(best),
                "size_bits": size.total(best) + around_bits,
                "predicted_us": latency.total(best) + around_us,
                "front": len(front),
            }
        )
        yield Progress("search", i + 1, len(context.experiment.budgets), f"{budget.name}: {best}")
    front = exact_front(context.space, [nsr, latency])
    write_json(
        context.path / "search.json",
        {
            "found": found,
            "teacher_size_bits": graph.size_bits,
            "around": {"size_bits": around_bits, "latency_us": around_us},
            "front": [
                {"subnet": str(a), "nsr": float(c[0]), "latency_us": float(c[1]) + around_us}
                for a, c in zip(front.architectures, front.costs, strict=True)
            ],
        },
    )
