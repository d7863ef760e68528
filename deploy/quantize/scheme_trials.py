"""Every scheme on one network: quantized, written, placed, scored and measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.compile.artifact import Artifact, lint_written
from deploy.formats.importers.network import ImportedNetwork
from deploy.latency.estimates import of_summary
from deploy.latency.table import summaries
from deploy.quantize.labelled import LabelledImages
from deploy.quantize.output_noise import FloatAnswers, output_noise_db
from deploy.quantize.quantized import Quantized, quantize
from deploy.quantize.record import NetworkOrigin
from deploy.quantize.scheme_option import OPTIONS, SchemeOption
from deploy.quantize.schemes import TriedScheme
from deploy.run.folder import Progress
from deploy.targets.placement import Target
from hil.errors import ModelError
from hil.job import Job, MeasureProtocol
from hil.measurement import Measurement
from nas.errors import QuantizationError
from nas.estimate import Estimate
from nas.tasks.counted import Counted, paired_difference, score_of

STAGE, MEASURE = "schemes", "measure"
PROTOCOL = MeasureProtocol(warmup_runs=5, runs=30, rounds=3)
Measure = Callable[[Sequence[Job]], Iterator[Measurement]]
Batches = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class NetworkOnData:
    """What is quantized: a network by its name, on batches of data, which `text` describes.

    `answers` are the float network's, for the noise; `origin` of its file.
    """

    network: ImportedNetwork
    name: str
    batches: Batches
    text: str
    answers: FloatAnswers
    origin: NetworkOrigin | None = None


@dataclass(frozen=True, eq=False)
class Criteria:
    """what there is to choose by, each None where there is none.

    Attributes:
        target: places the operators.
        labelled: gives the metric; `float_counts` are the float network's on it.
        measure: jobs on a board, by `PROTOCOL`.
    """

    target: Target | None = None
    labelled: LabelledImages | None = None
    float_counts: Counted | None = None
    measure: Measure | None = None


@dataclass(frozen=True, eq=False)
class SchemeTrial:
    """A scheme that was tried; without a network where it failed."""

    option: SchemeOption
    tried: TriedScheme
    quantized: Quantized | None = None
    artifact: Artifact | None = None


def try_schemes(
    subject: NetworkOnData, folder: Path, criteria: Criteria, options: Sequence[SchemeOption] = OPTIONS
) -> Generator[Progress, None, list[SchemeTrial]]:
    """All `options`; their files are in `folder`. What one of them cannot do is its failure, not the command's."""
    found = []
    for number, option in enumerate(options, start=1):
        yield Progress(STAGE, number - 1, len(options), str(option))
        found.append(_tried(subject, folder / f"scheme-{number}", criteria, option))
    yield Progress(STAGE, len(options), len(options), "done")
    return (yield from _measured(found, criteria.measure)) if criteria.measure else found


def _tried(subject: NetworkOnData, folder: Path, criteria: Criteria, option: SchemeOption) -> SchemeTrial:
    try:
        how = option.scheme, option.choices, option.in_float
        quantized = quantize(subject.network, subject.batches, *how, ends=option.ends)
        # as it would be written in the end
        artifact = quantized.save(folder, subject.name, subject.text, subject.origin, criteria.target)
        content, off_share = artifact.model.read_bytes(), None
        if criteria.target is not None:
            off_share = lint_written(content, str(option), criteria.target).off_share
        noise = output_noise_db(quantized, content, subject.answers)
        counts = criteria.labelled.counts(quantized, content) if criteria.labelled else None
    except (QuantizationError, ModelError) as error:
        return SchemeTrial(option, TriedScheme(str(option), failure=str(error)))
    metric = change = None
    if counts is not None and criteria.float_counts is not None:
        metric, change = score_of(counts), paired_difference([counts], [criteria.float_counts])
    tried = TriedScheme(str(option), noise, len(content), off_share, metric, change)
    return SchemeTrial(option, tried, quantized, artifact)


def _measured(trials: Sequence[SchemeTrial], measure: Measure) -> Generator[Progress, None, list[SchemeTrial]]:
    """In turns, so that a board that becomes slower is slow for all."""
    jobs = [replace(trial.artifact.job(), name=trial.tried.option) for trial in trials if trial.artifact]
    measurements = []
    for measurement in measure(jobs):
        measurements.append(measurement)
        yield Progress(MEASURE, len(measurements), len(jobs) * PROTOCOL.rounds, measurement.model, (measurement,))
    failures = {m.model: m.failure.reason for m in measurements if m.failure is not None}
    times = summaries([m for m in measurements if m.model not in failures])
    latencies = {name: of_summary(summary) for name, summary in times.items()}
    return [replace(trial, tried=_with_latency(trial.tried, latencies, failures)) for trial in trials]


def _with_latency(tried: TriedScheme, latencies: Mapping[str, Estimate], failures: Mapping[str, str]) -> TriedScheme:
    failure = failures.get(tried.option, tried.failure)
    return replace(tried, failure=failure, latency_us=latencies.get(tried.option))
