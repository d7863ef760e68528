"""The board as a bench for active measuring: every answer durable in the run's store before the next is asked for.

What to ask next is a function of what was answered, so a run that was killed asks the same again, is answered by the
store, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy.compile import subtrees
from deploy.compile.artifact import Artifact
from deploy.formats.digest import digest
from deploy.formats.files import read_json, write_json
from deploy.latency.active import Plan, Step, measure_actively
from deploy.latency.agreement import Sample
from deploy.latency.features import Features
from deploy.latency.overhead import Constants
from deploy.latency.predictor import Measured
from deploy.latency.table import halves, summaries
from deploy.run.context import Context, protocol
from deploy.run.measuring import measured
from deploy.run.models import compile_sample
from hil.job import Job
from hil.measurement import Measurement
from nas.errors import TableError
from nas.space import Architecture, Subnet
from nas.table import Entry, Table

ACTIVE = "active.json"
OVERHEAD_S = 0.03  # of the board, a model: loading and the first run of a small one


@dataclass(eq=False)
class OnBoard:
    """Blocks alone, less the constants, and whole models, all by the profile's protocol.

    Attributes:
        entries: what was measured of blocks, as the table will have it; answers: all measurements behind it.
    """

    context: Context
    constants: Constants
    entries: dict[Subnet, Entry] = field(default_factory=dict)
    answers: list[Measurement] = field(default_factory=list)

    def blocks(self, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, Measured, float]]:
        jobs = {subnet: subtrees.artifact(self.context.path / "subnets", subnet).job() for subnet in subnets}
        done, took_s = self._measured(list(jobs.values()))
        times = summaries(done)
        for subnet, job in jobs.items():
            entry = self.constants.work(times[job.name], subnet.block)
            self.entries[subnet] = entry
            yield subnet, Measured.of(entry), took_s[job.name]

    def models(self, architectures: Sequence[Architecture]) -> Iterator[tuple[Sample, float]]:
        jobs = {a: compiled_once(self.context, a).job() for a in architectures}
        done, took_s = self._measured(list(jobs.values()))
        times, split = summaries(done), halves(done)
        for a, job in jobs.items():
            yield Sample(a, float("nan"), times[job.name].median_us, split[job.name]), took_s[job.name]

    def measurable(self, architectures: Sequence[Architecture]) -> Sequence[Architecture]:
        return architectures

    def seconds(self, latency_us: float) -> float:
        settings = self.context.experiment.profile
        runs = settings.rounds * (1 + settings.warmup_runs + settings.runs)
        return settings.rounds * OVERHEAD_S + runs * latency_us / 1e6

    def _measured(self, jobs: Sequence[Job]) -> tuple[list[Measurement], Mapping[str, float]]:
        done = list(measured(self.context, jobs, protocol(self.context.experiment.profile)))
        took_s: dict[str, float] = {}
        self.answers += done
        for m in done:
            took_s[m.model] = took_s.get(m.model, 0.0) + m.own_us / 1e6
        return done, took_s


def compiled_once(context: Context, architecture: Architecture) -> Artifact:
    """A whole model's files, written if they are not there yet."""
    name = f"whole-{digest(context.keys['tables'], str(architecture))}"
    there = Artifact.at(context.path / "models", name)
    return there if there.exists else compile_sample(context, architecture, name)


def spend(bench: OnBoard, features: Features, plan: Plan) -> Iterator[Step]:
    """Measure what counts within the plan; `active.json` says at the end what was measured, and why no more."""
    context = bench.context
    nsr = Table.load(context.path / "tables" / "nsr.parquet")
    for step in measure_actively(context.space, features, nsr, bench, plan):
        yield step
    write_json(context.path / ACTIVE, _record(step, context.keys["profile"]))


def said(step: Step) -> str:
    """In words what is expected of the table."""
    loss, tau = step.chances.expected_loss, step.chances.expected_tau
    expected = f"expected loss of the front {loss:.2%}, tau-b {tau:.3f}"
    return f"{expected}; {step.ended}" if step.ended else expected


def _record(step: Step, key: str) -> dict[str, Any]:
    models = [
        {"subnet": str(s.architecture), "measured_us": s.measured_us, "halves_us": list(s.halves_us)}
        for s in step.known.models
    ]
    return {
        "key": key,
        "ended": step.ended,
        "board_s": round(step.known.seconds, 2),
        "blocks": len(step.known.blocks),
        "models": models,
        "expected_loss": step.chances.expected_loss,
        "expected_tau_b": step.chances.expected_tau,
        "spreads": asdict(step.model.spreads),
    }


def whole_models(folder: Path, key: str) -> list[Sample]:
    """The whole models that active measuring chose in the run of `folder`; none where it did not choose any."""
    path = folder / ACTIVE
    if not path.exists():
        return []
    record = read_json(path, ("key", "models"))
    if record["key"] != key:
        return []
    try:
        return [
            Sample(Architecture.parse(m["subnet"]), float("nan"), float(m["measured_us"]), tuple(m["halves_us"]))
            for m in record["models"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(f"{path}: not a record of this kit ({error}); delete it and profile again") from None
