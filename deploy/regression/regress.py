"""Latency against a baseline: are today's models slower than those of the suite?

Where both files exist, base and head take turns on the board, round by round, so that the effects of heat and of other
processes cancel; the same file twice, or a baseline of samples alone, is compared with the stored samples. A model that
looks slower is measured again, in new rounds after everything else, and has regressed only if both comparisons agree.
While the threshold is inside the interval, which other processes make wide, more rounds are measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from deploy.compile.artifact import Artifact
from deploy.formats.verdicts import Status
from deploy.regression.baselines import Baseline, load_suite, save
from deploy.run.records import Summary
from hil.errors import Incomparable, ModelError, UsageError
from hil.input_shape import shapes_in
from hil.measure import Job, MeasureProtocol, measure
from hil.measurement import Measurement
from hil.regression import FEWEST_ROUNDS, Comparison, Rounds, compare
from hil.sessions import JobSession
from hil.stage import sha256_of
from hil.store import Store
from hil.trust import FLAGS

LONGEST = 4  # times the rounds that were asked for, at most

Against = Literal["interleaved", "stored"]


@dataclass(frozen=True)
class Outcome:
    """How one model compares with its baseline.

    Attributes:
        model: its name.
        against: base measured in turns with head, or its stored samples; None where nothing was compared.
        first: the comparison.
        second: the one that had to confirm it.
        failure: why head or base does not run on the board.
        gap: why there was nothing to compare.
        taken: when the stored samples were taken, for people; "" where base was measured now.
        flags: why today's latencies of head or base deserve less trust (hil/trust.py): of half of the rounds or more.
    """

    model: str
    against: Against | None = None
    first: Comparison | None = None
    second: Comparison | None = None
    failure: str = ""
    gap: str = ""
    taken: str = ""
    flags: tuple[str, ...] = ()

    @property
    def regressed(self) -> bool:
        return self.first is not None and self.first.slower and self.second is not None and self.second.slower

    @property
    def status(self) -> Status:
        if self.failure:
            return "failed"
        return "incomparable" if self.gap else "regressed" if self.regressed else "ok"

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "status": self.status,
            "against": self.against,
            "first": self.first.to_json() if self.first else None,
            "second": self.second.to_json() if self.second else None,
            "failure": self.failure,
            "gap": self.gap,
            "taken": self.taken,
            "flags": list(self.flags),
        }


def heads_of_run(run: Path) -> dict[str, Artifact]:
    """The teacher and the selected models of a finished run, by name; trained on, the teacher is as fast."""
    summary = Summary.read(run / Summary.FILE)
    artifacts = (Artifact.at(run / "models", model.name) for model in (summary.teacher, *summary.models))
    return _complete(artifacts, "run the loop again, it makes what is missing")


def heads_of_folder(folder: Path) -> dict[str, Artifact]:
    """Every NAME.tflite of a folder, with NAME.input.bin and NAME.expected.bin."""
    heads = _complete(
        (Artifact.at(folder, path.stem) for path in sorted(folder.glob("*.tflite"))), "a model needs all 3"
    )
    if not heads:
        raise UsageError(f"{folder}: no .tflite file there: give a folder of compiled models")
    return heads


def _complete(artifacts: Iterable[Artifact], advice: str) -> dict[str, Artifact]:
    heads = {artifact.name: artifact for artifact in artifacts}
    for head in heads.values():
        if Path(head.name).name != head.name:
            raise UsageError(f"model {head.name!r}: its name cannot be a file's; rename it")
        for path in (head.model, head.input, head.expected):
            if not path.exists():
                raise UsageError(f"{path}: missing; {advice}")
    return heads


def check_rounds(protocol: MeasureProtocol) -> None:
    """`UsageError` for too few of them."""
    if protocol.rounds < FEWEST_ROUNDS:
        raise UsageError(f"{protocol.rounds} rounds do not show how rounds differ: --rounds {FEWEST_ROUNDS}")


@dataclass(frozen=True)
class Bench:
    """Where models are measured.

    Attributes:
        session: of the board.
        store: for the measurements.
        protocol: with a series that is new, so that no earlier measurement in `store` is used.
    """

    session: JobSession
    store: Store
    protocol: MeasureProtocol

    def __post_init__(self) -> None:
        check_rounds(self.protocol)

    def rounds(self, jobs: Sequence[Job], start: int, stop: int) -> dict[str, list[Measurement]]:
        """The rounds from `start` to before `stop`, by the job's name. Raises ModelError."""
        protocol = replace(self.protocol, rounds=stop)  # what the store holds is not run again
        found: dict[str, list[Measurement]] = {job.name: [] for job in jobs}
        for m in measure(self.session, jobs, protocol, self.store):
            if m.failure is not None:
                raise ModelError(f"{m.model}: {m.failure.reason}")
            if m.round >= start:
                found[m.model].append(m)
        return found


def regress(bench: Bench, heads: Mapping[str, Artifact], suite: Path, threshold: float) -> Iterator[Outcome]:
    """One outcome per model, of head or of the suite. Those that have to be confirmed come last.

    Raises Incomparable where there is no suite, UsageError, BoardError.
    """
    baselines = load_suite(suite)
    for name in sorted(baselines.keys() ^ heads.keys()):
        gap = (
            "no baseline; --update makes one" if name in heads else f"not among today's models; delete {suite}/{name}.*"
        )
        yield Outcome(name, gap=gap)
    doubtful = []
    for name in sorted(baselines.keys() & heads.keys()):
        outcome = _compared(bench, baselines[name], heads[name], threshold)
        if outcome.first is not None and outcome.first.slower:
            doubtful.append(outcome)
        else:
            yield outcome
    for outcome in doubtful:
        yield _compared(bench, baselines[outcome.model], heads[outcome.model], threshold, outcome)


def _compared(
    bench: Bench, baseline: Baseline, head: Artifact, threshold: float, doubtful: Outcome | None = None
) -> Outcome:
    base = replace(baseline.artifact, input_shapes=shapes_in(baseline.record.conditions.input_shapes))
    interleaved = base.exists and sha256_of(base.model) != sha256_of(head.model)
    differing = [] if interleaved else baseline.differing(head.job().under(bench.session.conditions))
    if interleaved and [entry.shape for entry in base.input_shapes] != [entry.shape for entry in head.input_shapes]:
        differing = ["input_shapes"]
    if differing:
        return Outcome(
            head.name, gap=f"its samples were taken under other conditions ({', '.join(differing)}); --update"
        )
    if not interleaved and (coarse := baseline.too_coarse):
        return Outcome(head.name, gap=f"{coarse}, too coarse to compare with; --update")
    allowed = threshold if baseline.record.threshold is None else baseline.record.threshold
    if interleaved:
        return _measured(bench, base, head, None, threshold=allowed, doubtful=doubtful)
    stored = baseline.record.rounds_us
    return replace(_measured(bench, base, head, stored, threshold=allowed, doubtful=doubtful), taken=baseline.taken)


def in_turns(bench: Bench, base: Artifact, head: Artifact, threshold: float) -> Outcome:
    """Two files measured in turns; a head that looks slower is measured once more."""
    outcome = _measured(bench, base, head, None, threshold=threshold)
    if outcome.first is not None and outcome.first.slower:
        return _measured(bench, base, head, None, threshold=threshold, doubtful=outcome)
    return outcome


def _measured(
    bench: Bench,
    base: Artifact,
    head: Artifact,
    stored: Rounds | None,
    *,
    threshold: float,
    doubtful: Outcome | None = None,
) -> Outcome:
    """`stored`: base's samples; None: it is measured in turns with head. `doubtful`: what has to be confirmed."""
    interleaved = stored is None
    against: Against = "interleaved" if interleaved else "stored"
    jobs = [head.job(), *([replace(base.job(), name=f"{base.name} (base)")] if interleaved else [])]
    many, start = bench.protocol.rounds, doubtful.first.rounds if doubtful and doubtful.first else 0
    for stop in range(start + many, start + LONGEST * many + 1, many):
        try:
            runs = bench.rounds(jobs, start, stop)
        except ModelError as error:
            return Outcome(head.name, against, failure=str(error))
        before = _latencies(runs[jobs[-1].name]) if stored is None else stored
        comparison = compare(before, _latencies(runs[head.name]), threshold, interleaved=interleaved)
        if comparison.decided:
            break
    flags = _flags(runs.values())
    if doubtful:
        return replace(doubtful, second=comparison, flags=tuple(dict.fromkeys((*doubtful.flags, *flags))))
    return Outcome(head.name, against, comparison, flags=flags)


def _latencies(rounds: Sequence[Measurement]) -> Rounds:
    return [m.latencies_us for m in rounds]


def _flags(models: Iterable[Sequence[Measurement]]) -> tuple[str, ...]:
    """Those that half of the rounds of one model have, or more."""
    counts = [(Counter(flag for m in rounds for flag in m.flags), len(rounds)) for rounds in models]
    return tuple(flag for flag in FLAGS if any(2 * found[flag] >= rounds > 0 for found, rounds in counts))


def update(bench: Bench, heads: Mapping[str, Artifact], suite: Path) -> list[str]:
    """Replace the suite's models and samples by today's; models that only the suite has stay. The names written."""
    measured: dict[str, list[Measurement]] = {}
    for m in measure(bench.session, [head.job() for head in heads.values()], bench.protocol, bench.store):
        if m.failure is not None:
            raise ModelError(f"{m.model} failed on {bench.session.board.name}: {m.failure.reason}")
        measured.setdefault(m.model, []).append(m)
    for name, runs in measured.items():
        save(suite, heads[name], runs)
    return list(measured)


def conclude(outcomes: Sequence[Outcome]) -> int:
    """The exit code: 0 or 1 for a regression. Raises ModelError for models that fail, then Incomparable for gaps."""
    failed = [o for o in outcomes if o.failure]
    if failed:
        raise ModelError(f"{len(failed)} of {len(outcomes)} models fail on the board; the first is {failed[0].failure}")
    if any(o.regressed for o in outcomes):
        return 1
    gaps = [o for o in outcomes if o.gap]
    if gaps:
        raise Incomparable(
            f"{len(gaps)} of {len(outcomes)} models not compared; the first is {gaps[0].model}: {gaps[0].gap}"
        )
    return 0
