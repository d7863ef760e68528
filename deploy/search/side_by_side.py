"""Candidates as full models on the board, in turns with the teacher: each one's share of the teacher's latency.

What was measured together is one set of files: their metadata names the set, so the store, which never measures a file
twice, pairs no model with a teacher that was measured at another time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from deploy.formats.digest import digest
from deploy.latency.agreement import failures
from deploy.latency.shares import MORE_ROUNDS, enough_rounds, latency_shares
from deploy.latency.table import halves, summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.models import compile_sample, compile_teacher
from deploy.run.schemes import SchemeRun, main_scheme_run, other_scheme_runs
from deploy.search.candidate import Candidate
from hil.job import Job
from hil.measurement import Measurement
from nas.estimate import Estimate
from nas.quant.integer_graph import IntegerGraph

TEACHER = "teacher"


@dataclass(frozen=True)
class MeasuredModel:
    """A full model beside the teacher; either it has a share or it failed.

    Attributes:
        share: of the teacher's latency, with its 95 % interval.
        halves: the medians of two halves of the samples, as shares of the teacher's median.
        failure: why it has no latency.
    """

    share: Estimate | None = None
    halves: tuple[float, float] | None = None
    failure: str | None = None

    def keeps(self, limit: float) -> bool:
        """Whether the whole interval is within a share of the teacher's latency."""
        return self.share is not None and self.share.high <= limit

    def undecided(self, limits: Sequence[float]) -> bool:
        """Whether one of the limits lies within the interval."""
        share = self.share
        return share is not None and any(share.low <= limit < share.high for limit in limits)


@dataclass(frozen=True)
class SideBySide:
    """What was measured together; `teacher_us`: the teacher's median then; `rounds`: the most of any model."""

    models: Mapping[Candidate, MeasuredModel]
    teacher_us: float
    rounds: int


def measured_beside(
    context: Context,
    teacher: IntegerGraph,
    wanted: Mapping[Candidate, Sequence[float]],
    check: Callable[[Measurement], None],
) -> Generator[Progress, None, SideBySide]:
    """The candidates' shares of the teacher's latency, by the agreement's protocol.

    `wanted` has the limits that matter for each: while one lies within its interval, more rounds are measured.
    """
    jobs, candidates = yield from _compiled(context, teacher, wanted)
    settings = enough_rounds(protocol(context.experiment.agreement.measuring))
    most, names = MORE_ROUNDS * settings.rounds, list(candidates)
    found: dict[Candidate, MeasuredModel] = {}
    while True:
        together = [jobs[name] for name in (TEACHER, *names)]
        measurements = yield from measure_with_progress(
            context, together, settings, "search", "side by side:", check=check, together=True
        )
        failed = failures(measurements)
        well = [m for m in measurements if m.model == TEACHER or m.model not in failed]
        teacher_us = summaries(well)[TEACHER].median_us
        shares, split = latency_shares(well, TEACHER, seed=context.experiment.seed), halves(well)
        for name in names:
            if name in failed:
                found[candidates[name]] = MeasuredModel(failure=failed[name])
            else:
                first, second = split[name]
                found[candidates[name]] = MeasuredModel(shares[name], (first / teacher_us, second / teacher_us))
        names = [name for name in names if found[candidates[name]].undecided(wanted[candidates[name]])]
        if not names or settings.rounds >= most:
            return SideBySide(found, teacher_us, settings.rounds)
        settings = replace(settings, rounds=2 * settings.rounds)


def _compiled(
    context: Context, teacher: IntegerGraph, wanted: Mapping[Candidate, Sequence[float]]
) -> Generator[Progress, None, tuple[dict[str, Job], dict[str, Candidate]]]:
    """By name the jobs, the teacher's first, and whose they are."""
    together = digest(*sorted(map(str, wanted)))
    own = compile_teacher(context, teacher, f"{TEACHER}-{together}", together=together)
    jobs, candidates = {TEACHER: replace(own.job(), name=TEACHER)}, {}
    for i, candidate in enumerate(wanted, start=1):
        of = _scheme_run(context, candidate)
        name = f"candidate-{digest(together, str(candidate))}"
        artifact = compile_sample(context, candidate.architecture, name, of, together=together)
        jobs[name], candidates[name] = replace(artifact.job(), name=name), candidate
        yield Progress("search", i, len(wanted), f"compiled {candidate}")
    return jobs, candidates


def _scheme_run(context: Context, candidate: Candidate) -> SchemeRun:
    main = main_scheme_run(context)
    runs = {run.scheme: run for run in (main, *other_scheme_runs(context))}
    return runs[candidate.scheme] if candidate.scheme else main
