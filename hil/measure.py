"""Models in, measurements out: interleaved rounds, each one durable before anybody sees it.

Rounds are interleaved and shuffled, so that a drift of the board (heat, a neighbour) falls on all models
alike and shows as a difference between rounds, not between models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from hil.answer import Answer
from hil.errors import BoardError, BoardFault, BoardTimeout, Incomparable, LinkLost
from hil.evaluate import evaluate, failed
from hil.job import Job, MeasureProtocol, RoundTask, files_of, identity_of, request_of, tasks_of
from hil.measurement import Failure, Measurement, digest, now
from hil.sessions import JobSession
from hil.stage import sha256_of
from hil.store import Store

__all__ = ["Job", "MeasureProtocol", "measure", "now", "pooled"]

AHEAD = 4  # jobs that the board holds beyond the one it runs: it never waits for us
ACKNOWLEDGED_AT_ONCE = 1000
PUSH_AT_ONCE = 64  # models whose files travel together, while the board works on earlier ones


@dataclass
class _Flight:
    """A task on its way: its answer, or the measurement that makes an answer unnecessary."""

    task: RoundTask
    started_at: str
    answer: Answer | None = None
    done: Measurement | None = None


def measure(
    session: JobSession,
    jobs: Iterable[Job],
    protocol: MeasureProtocol,
    store: Store,
    *,
    seed: int = 0,
    canary: Job | None = None,
    retry_failed: bool = False,
) -> Iterator[Measurement]:
    """One measurement for each job and round, round after round; what the store holds is not run again.

    A model that fails is a measurement with a failure, in later rounds without another run. Where `canary`, a
    known-good model, fails too, it is the bench that is bad: a BoardError, and the model is not blamed. A model that
    takes the board down twice while the canary runs is blamed and quarantined. Other board failures are a BoardError
    after one retry over a fresh connection; what was done by then is in the store, so the same call goes on from
    there. `retry_failed` runs again what the store holds as failed. Raises UsageError for files that cannot be read.
    """
    yield from _Measuring(session, protocol, store, canary).run(list(jobs), seed, retry_failed)


class _Measuring:
    """The state of one call of `measure`."""

    def __init__(self, session: JobSession, protocol: MeasureProtocol, store: Store, canary: Job | None) -> None:
        self.session, self.protocol, self.store, self.canary = session, protocol, store, canary
        self.failed: dict[str, Measurement] = {}  # the first failure of each job, by its identity
        self.flights: deque[_Flight] = deque()
        self.acknowledged: deque[str] = deque(maxlen=4 * AHEAD)  # a lost link may have lost these too

    def _key(self, job: Job) -> str:
        """Of the conditions under which a job is measured."""
        return job.under(self.session.conditions).key()

    def run(self, jobs: Sequence[Job], seed: int, retry_failed: bool) -> Iterator[Measurement]:
        tasks = list(tasks_of(jobs, self.session.board.config, self.session.conditions.key(), self.protocol, seed))
        held = self.store.find(task.job_id for task in tasks)
        if retry_failed:
            again = {i: m.attempt + 1 for i, m in held.items() if m.status == "failed"}
            tasks = [replace(task, attempt=again.get(task.job_id, 0)) for task in tasks]
            held = {i: m for i, m in held.items() if m.status == "ok"}
        self._acknowledge(held)  # a kill may have come between the store and the acknowledgement
        keys = {self._key(job) for job in jobs}
        self.quarantined = {(key, model): why for key in keys for model, why in self.store.quarantined(key).items()}
        waiting, pushed = deque(tasks), deque[RoundTask]()
        while waiting or pushed or self.flights:
            if waiting and len(pushed) < AHEAD:
                count = min(PUSH_AT_ONCE if self.flights else 2 * AHEAD, len(waiting))  # few while the board is idle
                pushed += self._push([waiting.popleft() for _ in range(count)], held)
            while pushed and len(self.flights) <= AHEAD and not self._is_flying(pushed[0]):
                self._depart(pushed.popleft(), held)
            flight = self.flights.popleft()
            done = flight.done or self._land(flight)
            if done.job_id not in held:
                self.store.add(done)
                held[done.job_id] = done
                if flight.answer is not None:
                    self.acknowledged.append(done.job_id)
                    self._acknowledge([done.job_id])
            if done.status == "failed":
                self.failed.setdefault(flight.task.identity, done)
            # the files may have been measured under another name, elsewhere
            yield replace(done, model=flight.task.job.name, path=str(flight.task.job.model.absolute()))

    def _push(self, tasks: list[RoundTask], held: dict[str, Measurement]) -> list[RoundTask]:
        """The files of `tasks`, and the canary's, are on the board when this returns."""
        files = [path for task in tasks if task.job_id not in held for path in files_of(task.job)]
        self.session.stage_many([*files, *(files_of(self.canary) if self.canary and files else ())])
        return tasks

    def _is_flying(self, task: RoundTask) -> bool:
        """Whether this very job's earlier round is still out: if it fails, the next is not run."""
        return any(flight.task.identity == task.identity for flight in self.flights)

    def _depart(self, task: RoundTask, held: dict[str, Measurement]) -> None:
        flight = _Flight(task, now(), done=held.get(task.job_id))
        if flight.done is None and task.identity in self.failed:
            flight.done = _again(self.failed[task.identity], task)
        quarantined = self.quarantined.get((self._key(task.job), task.model_sha256))
        if flight.done is None and quarantined is not None:
            reason = f"quarantined: {quarantined}; `hilnas quarantine clear` lets it run again"
            flight.done = failed(task, self.session.conditions, reason, flight.started_at)
        self.flights.append(flight)
        if flight.done is None:
            self._send(task)

    def _send(self, task: RoundTask) -> None:
        """A lost link shows when the answer is waited for."""
        paths = self.session.stage_many(files_of(task.job))
        request = request_of(task, self.session.board.config, self._key(task.job), self.protocol, paths)
        with suppress(LinkLost, BoardTimeout):
            self.session.send(request)

    def _reconnect(self) -> None:
        self.session.reconnect()
        self._acknowledge(list(self.acknowledged))

    def _acknowledge(self, job_ids: Iterable[str]) -> None:
        with suppress(LinkLost, BoardTimeout):  # they then stay in the board's spool for a week
            ids = list(job_ids)
            for start in range(0, len(ids), ACKNOWLEDGED_AT_ONCE):
                self.session.acknowledge(ids[start : start + ACKNOWLEDGED_AT_ONCE])

    def _land(self, flight: _Flight) -> Measurement:
        """The measurement of a task; a failure is blamed on the model only if the bench works."""
        try:
            answer = self._answered(flight)
        except (LinkLost, BoardTimeout, BoardFault) as first:
            try:
                self._reconnect()
                self._send_again(flight, *self.flights)
                answer = self._answered(flight)
            except (LinkLost, BoardTimeout, BoardFault) as second:
                return self._blamed(flight, first, second)
        done = evaluate(answer, flight.task, self.session.conditions, self.session.board.config, flight.started_at)
        if done.failure is not None:
            self._drain()
            self._check_bench(f"{done.model} failed ({done.failure.reason})")
            if answer.failure is not None:  # it crashed or hung; a wrong output harms no other model
                self.store.quarantine(done.model_sha256, done.conditions.key(), done.failure.reason)
        return done

    def _answered(self, flight: _Flight) -> Answer:
        answer = flight.answer or self.session.receive(flight.task.job_id)
        if answer.failure is not None and answer.failure.kind != "model":
            raise BoardFault(
                f"board {self.session.board.name}: {flight.task.job.name} {answer.failure.reason}: "
                "what changed on the board?"
            )
        flight.answer = answer
        return answer

    def _send_again(self, *flights: _Flight) -> None:
        """What is in flight, to a fresh runner; what the board had finished it only repeats."""
        for flight in flights:
            if flight.done is None and flight.answer is None:
                self._send(flight.task)

    def _drain(self) -> None:
        """The answers to what is in flight, so that the board is free."""
        for flight in self.flights:
            if flight.done is None and flight.answer is None:
                flight.answer = self.session.receive(flight.task.job_id)

    def _blamed(self, flight: _Flight, first: BoardError, second: BoardError) -> Measurement:
        """A task that lost the board twice: the model's fault if the board comes back and runs the canary."""
        if self.canary is None or isinstance(second, BoardFault):
            raise second
        try:
            self._reconnect()
            self._check_bench("a model took the board down")
        except BoardError:
            raise second from first
        reason = f"took the board down twice, and the board then ran the known-good model: {second}"
        done = failed(flight.task, self.session.conditions, reason, flight.started_at)
        self.store.quarantine(done.model_sha256, done.conditions.key(), reason)
        self._send_again(*self.flights)
        return done

    def _check_bench(self, why: str) -> None:
        """Raises BoardError where the known-good model does not give its known answer."""
        if self.canary is None or self.session.recorded:  # the bench was checked when it was recorded
            return
        config, sha256 = self.session.board.config, sha256_of(self.canary.model)
        identity = identity_of(self.canary, sha256, config)
        flight = _Flight(RoundTask(self.canary, identity, 0, digest(["canary", identity, now()]), sha256), now())
        self._send(flight.task)
        done = evaluate(self._answered(flight), flight.task, self.session.conditions, config, flight.started_at)
        self._acknowledge([done.job_id])
        if done.failure is not None:
            raise BoardError(
                f"board {config.name}: {why}, and so does the known-good model: {done.failure.reason}: "
                f"fix the bench (`hilnas board check {config.name}`), then go on"
            )


def pooled(measurements: Iterable[Measurement]) -> dict[str, tuple[float, ...]]:
    """Latencies (microseconds) over all rounds, by model sha256; of one file under two names each sample once.

    A model that failed in one round is left out: an output that was wrong once makes the other rounds doubtful.

    Raises Incomparable when the measurements were taken under different conditions; other models may have inputs of
    other sizes, the same one may not; nor may it have been timed both alone and to its class map.
    """
    kept = list(measurements)
    twofold = {m.model_sha256: m.model for m in kept if m.class_map_us is not None}
    if both := [twofold[m.model_sha256] for m in kept if m.class_map_us is None and m.model_sha256 in twofold]:
        raise Incomparable(f"{both[0]} was timed alone, and to its class map: these are two latencies, pick one")
    sizes = {(measurement.model_sha256, measurement.conditions.input_shapes) for measurement in kept}
    one_each = len(sizes) == len({model for model, _ in sizes})
    keys = {(replace(m.conditions, input_shapes="") if one_each else m.conditions).key() for m in kept}
    if len(keys) > 1:
        raise Incomparable(f"measurements under {len(keys)} different conditions ({', '.join(sorted(keys))}): pick one")
    failed = {measurement.model_sha256 for measurement in kept if measurement.status == "failed"}
    pools: dict[str, tuple[float, ...]] = {}
    for measurement in {(m.job_id, m.attempt): m for m in kept}.values():
        if measurement.model_sha256 not in failed:
            before = pools.get(measurement.model_sha256, ())
            pools[measurement.model_sha256] = before + measurement.latencies_us
    return pools


def _again(first: Measurement, task: RoundTask) -> Measurement:
    reason = first.failure.reason if first.failure is not None else "failed"
    prefix = f"not run again after round {first.round}: "
    failure = Failure("model", reason if reason.startswith("not run again") else prefix + reason)
    return replace(first, job_id=task.job_id, round=task.round, failure=failure, attempt=task.attempt)
