"""The board as the source of active measuring: every measurement is durable before the next is requested.

The next request follows from the measurements so far, so a run that was killed requests the same again, is answered
from the store, and continues where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.compile import subtrees
from deploy.compile.artifact import Artifact
from deploy.formats.digest import digest
from deploy.latency.active import ActiveStep, Plan, measure_actively
from deploy.latency.active_record import ActiveRecord
from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.features import BlockFeatures
from deploy.latency.overhead import OverheadRecord
from deploy.latency.table import halves, summaries
from deploy.run.context import Context, protocol
from deploy.run.measuring import measured
from deploy.run.models import compile_sample
from deploy.run.settings.deployment import Measuring
from hil.job import Job
from hil.measurement import Measurement
from nas.estimate import Estimate
from nas.space import Architecture, Subnet
from nas.table import Table

LOADING_S = 0.03  # board time per model and round: loading and the first run of a small one


def board_seconds(settings: Measuring, latency_us: float) -> float:
    """About how much board time a measurement of this latency takes."""
    runs = settings.rounds * (1 + settings.warmup_runs + settings.runs)
    return settings.rounds * LOADING_S + runs * latency_us / 1e6


@dataclass(eq=False)
class BoardSource:
    """Isolated blocks, less the overhead, and full networks, all by the profile's protocol.

    Attributes:
        context: the run.
        overhead: to take out of blocks.
        entries: what was measured of blocks, as the table will have it.
        measurements: all that was measured.
    """

    context: Context
    overhead: OverheadRecord
    entries: dict[Subnet, Estimate] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)

    def blocks(self, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, Estimate, float]]:
        jobs = {subnet: subtrees.artifact(self.context.path / "subnets", subnet).job() for subnet in subnets}
        done, took_s = self._measured(list(jobs.values()))
        times = summaries(done)
        for subnet, job in jobs.items():
            entry = self.entries[subnet] = self.overhead.work(times[job.name], subnet.block)
            yield subnet, entry, took_s[job.name]

    def networks(self, architectures: Sequence[Architecture]) -> Iterator[tuple[MeasuredNetwork, float]]:
        jobs = {a: compiled_once(self.context, a).job() for a in architectures}
        done, took_s = self._measured(list(jobs.values()))
        times, split = summaries(done), halves(done)
        for a, job in jobs.items():
            sample = MeasuredNetwork(a, float("nan"), times[job.name].median_us, split[job.name])
            yield sample, took_s[job.name]

    def measurable(self, architectures: Sequence[Architecture]) -> Sequence[Architecture]:
        return architectures

    def seconds(self, latency_us: float) -> float:
        return board_seconds(self.context.experiment.profile, latency_us)

    def _measured(self, jobs: Sequence[Job]) -> tuple[list[Measurement], Mapping[str, float]]:
        done = list(measured(self.context, jobs, protocol(self.context.experiment.profile)))
        took_s: dict[str, float] = {}
        self.measurements += done
        for m in done:
            took_s[m.model] = took_s.get(m.model, 0.0) + m.board_us / 1e6
        return done, took_s


def compiled_once(context: Context, architecture: Architecture) -> Artifact:
    """A full network's files, written if they are missing."""
    name = f"whole-{digest(context.keys['tables'], str(architecture))}"
    there = Artifact.at(context.path / "models", name)
    return there if there.exists else compile_sample(context, architecture, name)


def spend(source: BoardSource, features: BlockFeatures, plan: Plan) -> Iterator[ActiveStep]:
    """Measure what counts within the plan; active.json has at the end what was measured, and why no more."""
    context = source.context
    nsr = Table.load(context.path / "tables" / "nsr.parquet")
    for step in measure_actively(context.space, features, nsr, source, plan):
        yield step
    ActiveRecord.of(step, context.keys["profile"]).write(context.path / ActiveRecord.FILE)
