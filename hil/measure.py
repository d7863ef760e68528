"""Models in, measurements out: interleaved rounds, each one durable before anybody sees it.

Rounds are interleaved and shuffled, so that a drift of the board (heat, a neighbour) falls on all models
alike and shows as a difference between rounds, not between models.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hil.boards.inventory import BoardConfig
from hil.errors import BoardError, BoardTimeout, Incomparable, LinkLost, UsageError
from hil.measurement import Failure, Measurement, Parity, digest
from hil.session import Session
from hil.stage import sha256_of
from hil.store import Store

ANSWER_MARGIN_S = 30.0  # the runner keeps the deadlines; past this it is the board that hangs


@dataclass(frozen=True)
class Job:
    """A model to measure.

    Attributes:
        model: the .tflite file; `name`: how reports call it.
        input: raw little-endian bytes of its inputs, one after the other; None: random, the same each time.
        expected: likewise of its outputs for that input; None: parity is not checked.
    """

    model: Path
    name: str
    input: Path | None = None
    expected: Path | None = None

    def __post_init__(self) -> None:
        if self.expected is not None and self.input is None:
            raise UsageError(f"job {self.name}: expected outputs belong to an input: give both files")


@dataclass(frozen=True)
class MeasureProtocol:
    """How a model is measured.

    Attributes:
        warmup_runs: runs after the first one that are not counted; `runs`: steady ones that are, a round.
        rounds: how often the whole set is gone through.
        compile_deadline_s: until the first inference is done (an NPU compiles then: minutes).
        run_deadline_s: for all runs after it together.
    """

    warmup_runs: int = 5
    runs: int = 30
    rounds: int = 2
    compile_deadline_s: float = 600.0
    run_deadline_s: float = 60.0

    def __post_init__(self) -> None:
        if self.warmup_runs < 0 or self.runs < 1 or self.rounds < 1:
            raise UsageError(f"{self}: runs and rounds must be 1 or more, warmup_runs 0 or more")
        if self.compile_deadline_s <= 0 or self.run_deadline_s <= 0:
            raise UsageError(f"{self}: deadlines must be above 0 s")

    def key(self) -> str:
        """Over what changes a measurement. Not over `rounds`: more of them keep those that are done."""
        return digest({name: value for name, value in asdict(self).items() if name != "rounds"})[:16]


@dataclass(frozen=True)
class _Task:
    """A job in one round; `identity` is that of the job without its round and conditions."""

    job: Job
    identity: str
    round: int
    job_id: str
    model_sha256: str


def measure(
    session: Session, jobs: Iterable[Job], protocol: MeasureProtocol, store: Store, *, seed: int = 0
) -> Iterator[Measurement]:
    """One measurement for each job and round, round after round; what the store holds is not run again.

    A model that fails is a measurement with a failure, in later rounds without another run. A board that
    fails is a BoardError, after one retry over a fresh connection; what was done by then is in the store, so
    the same call goes on from there. Raises UsageError for files that cannot be read.
    """
    tasks = list(_tasks(list(jobs), session, protocol, seed))
    held = store.find(task.job_id for task in tasks)
    session.stage.stage_many(path for task in tasks if task.job_id not in held for path in _files(task.job))
    failed: dict[str, Measurement] = {}  # the first failure of each job, by its identity
    for task in tasks:
        done = held.get(task.job_id)
        if done is None and task.identity in failed:
            done = _again(failed[task.identity], task)
        elif done is None:
            done = _run(session, task, protocol)
        if task.job_id not in held:
            store.add(done)
            held[task.job_id] = done
        if done.status == "failed":
            failed.setdefault(task.identity, done)
        yield replace(done, model=task.job.name)  # the same files may have been measured under another name


def pooled(measurements: Iterable[Measurement]) -> dict[str, tuple[int, ...]]:
    """Latencies (microseconds) over all rounds, by model sha256. A model that failed in one round is left
    out: an output that was wrong once makes its other rounds no better.

    Raises Incomparable when the measurements were taken under different conditions.
    """
    kept = list(measurements)
    keys = {measurement.conditions.key() for measurement in kept}
    if len(keys) > 1:
        raise Incomparable(f"measurements under {len(keys)} different conditions ({', '.join(sorted(keys))}): pick one")
    failed = {measurement.model_sha256 for measurement in kept if measurement.status == "failed"}
    pools: dict[str, tuple[int, ...]] = {}
    for measurement in kept:
        if measurement.model_sha256 not in failed:
            before = pools.get(measurement.model_sha256, ())
            pools[measurement.model_sha256] = before + measurement.latencies_us
    return pools


def _tasks(jobs: Sequence[Job], session: Session, protocol: MeasureProtocol, seed: int) -> Iterator[_Task]:
    conditions_key, config = session.conditions.key(), session.board.config
    models = [sha256_of(job.model) for job in jobs]
    identities = [_identity(job, sha256, config) for job, sha256 in zip(jobs, models, strict=True)]
    for round_number in range(protocol.rounds):
        order = list(range(len(jobs)))
        random.Random(f"{seed}:{round_number}").shuffle(order)
        for index in order:
            job_id = digest([identities[index], conditions_key, protocol.key(), round_number])
            yield _Task(jobs[index], identities[index], round_number, job_id, models[index])


def _identity(job: Job, model_sha256: str, config: BoardConfig) -> str:
    """Over the files, and over the tolerances where they decide: loosened, a refused model runs again."""
    files = [sha256_of(path) if path is not None else None for path in (job.input, job.expected)]
    judged = [config.parity_max_abs_diff, config.parity_max_mismatch] if job.expected is not None else []
    return digest([model_sha256, *files, *judged, bool(config.delegate) and not config.allow_fallback])


def _files(job: Job) -> list[Path]:
    return [path for path in (job.model, job.input, job.expected) if path is not None]


def _run(session: Session, task: _Task, protocol: MeasureProtocol) -> Measurement:
    """Runs it, once more over a fresh connection when the board or the link failed."""
    try:
        return _attempt(session, task, protocol)
    except (LinkLost, BoardTimeout, _BoardFault):
        session.reconnect()
        return _attempt(session, task, protocol)


class _BoardFault(BoardError):  # noqa: N818
    """The runner blames the board: a file or a library that is missing there."""


def _attempt(session: Session, task: _Task, protocol: MeasureProtocol) -> Measurement:
    config = session.board.config
    paths = session.stage.stage_many(_files(task.job))
    request: dict[str, Any] = {
        "id": task.job_id,
        "model": paths[task.job.model],
        "threads": config.threads,
        "kernels": config.kernels,
        "warmup_runs": protocol.warmup_runs,
        "runs": protocol.runs,
        "compile_deadline_s": protocol.compile_deadline_s,
        "run_deadline_s": protocol.run_deadline_s,
    }
    if task.job.input is not None:
        request["input"] = paths[task.job.input]
    if task.job.expected is not None:
        request["expected"] = paths[task.job.expected]
    if config.delegate:
        request.update(delegate=config.delegate, delegate_options=config.delegate_options)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    timeout_s = protocol.compile_deadline_s + protocol.run_deadline_s + ANSWER_MARGIN_S
    answer = session.run(request, timeout_s)
    return _judge(answer, session, task, started_at)


def _judge(answer: dict[str, Any], session: Session, task: _Task, started_at: str) -> Measurement:
    """The record of an answer. Raises _BoardFault when it was not about the model."""
    failure = answer.get("failure")
    if failure is not None and failure["kind"] == "board":
        raise _BoardFault(
            f"board {session.board.name}: {task.job.name} {failure['reason']}: what changed on the board?"
        )
    raw_parity = answer.get("parity")
    parity = Parity.from_json(raw_parity) if raw_parity else None
    reason = failure["reason"] if failure is not None else _refusal(answer, parity, session.board.config)
    return Measurement(
        job_id=task.job_id,
        model=task.job.name,
        model_sha256=task.model_sha256,
        round=task.round,
        status="ok" if reason is None else "failed",
        load_us=answer.get("load_us", 0),
        first_us=answer.get("first_us", 0),
        latencies_us=tuple(answer["latencies_us"]) if reason is None else (),
        conditions=session.conditions,
        parity=parity,
        operators=tuple(answer.get("operators", ())),
        delegated_nodes=answer.get("delegated_nodes", 0),
        failure=None if reason is None else Failure("model", reason),
        started_at=started_at,
    )


def _refusal(answer: dict[str, Any], parity: Parity | None, config: BoardConfig) -> str | None:
    """Why a model that ran still does not count; None when it does."""
    if config.delegate and not answer["delegated_nodes"] and not config.allow_fallback:
        return (
            f"{Path(config.delegate).name} took no part of the model, it ran on the CPU: "
            "see the operators, or set allow_fallback"
        )
    if parity is None:
        return None
    close = parity.max_abs_diff <= config.parity_max_abs_diff
    few = parity.mismatched <= config.parity_max_mismatch * parity.elements
    if close or few:
        return None
    return (
        f"outputs differ from the expected ones: {parity.mismatched} of {parity.elements} elements, "
        f"by {parity.max_abs_diff:g} at most; allowed: by {config.parity_max_abs_diff:g}, "
        f"or {config.parity_max_mismatch:g} of the elements"
    )


def _again(failed: Measurement, task: _Task) -> Measurement:
    reason = failed.failure.reason if failed.failure is not None else "failed"
    prefix = f"not run again after round {failed.round}: "
    told = reason if reason.startswith("not run again") else prefix + reason
    return replace(failed, job_id=task.job_id, round=task.round, failure=Failure("model", told))
