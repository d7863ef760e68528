"""A model's outputs for many inputs on a board, through its runner, in batches.

A batch loads the model once. One that fails is given again input by input: an input that the model crashes, hangs or
gives no numbers on is separated from the others, which all have their outputs.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path

from hil.answer import Answer, ModelOutputs
from hil.errors import BoardError, BoardFault, BoardTimeout, LinkLost, ModelError, UsageError
from hil.job import Job, MeasureProtocol, RoundTask, files_of, request_of
from hil.measurement import digest
from hil.session import Session
from hil.sessions import JobSession
from hil.stage import sha256_of

FIRST_BATCH, MOST_INPUTS = 4, 256
BATCH_BYTES = 8 << 20  # of inputs or outputs: an answer is one line, and what is under way is lost with the host
KEPT_BYTES = 64 << 20  # of inputs that are answered
FIXED_SHARE = 0.1  # of a batch's time: to send it, and to load the model, for which an NPU may compile the graph
ALL_FAIL = 3  # inputs, the first of all: then it is the model
DEADLINES = MeasureProtocol(warmup_runs=0, runs=1, rounds=1)


@dataclass(frozen=True)
class InputOutputs:
    """What the model gave for one input.

    Attributes:
        data: raw little-endian bytes of all output tensors, one after the other; empty for a failure.
        invoke_us: the inference, microseconds.
        failure: why there is no output; None where there is one.
    """

    data: bytes
    invoke_us: int = 0
    failure: str | None = None


@dataclass(eq=False)
class _Batch:
    """Inputs on their way to the board; `sent` unless the link was lost before, `answer` once it is here."""

    task: RoundTask
    inputs: tuple[bytes, ...]
    sent: bool = False
    answer: Answer | None = None


def outputs_of(
    session: JobSession,
    job: Job,
    inputs: Iterable[bytes],
    deadlines: MeasureProtocol = DEADLINES,
    *,
    canary: Job | None = None,
    runs: bool = False,
) -> Generator[InputOutputs, None, None]:
    """The outputs of a job's model for each of `inputs`, in order, as they come; the board has one batch ahead.

    Inputs are raw bytes of all input tensors, one after the other, all as long. `deadlines`: of loading with the first
    inference, and of each inference after it. A link that is lost is made again once for each batch.
    `runs`: the model is known to run there, so that it is the inputs, if the first ones fail.

    Raises:
        UsageError: the board runs no models (a replay), or shows no outputs (benchmark_model).
        ModelError: the first inputs fail one and all, or the configured delegate takes no part of the model.
        BoardError: the link was lost twice, or `canary`, a known-good model, fails too where an input fails.
    """
    config = session.board.config
    if session.recorded or not isinstance(session, Session):
        raise UsageError(f"board {config.name} is a replay: no model runs there; name a real board, or none")
    if config.driver != "python":
        raise UsageError(
            f"board {config.name} runs models by {config.driver}, which shows no outputs: "
            "install ai-edge-litert or tflite-runtime there and remove `driver` from boards.toml, or name no board"
        )
    with tempfile.TemporaryDirectory(prefix="hilnas-inputs-") as scratch:
        asking = _Asking(session, job, deadlines, canary, Path(scratch), well=int(runs))
        try:
            yield from asking.run(iter(inputs))
        finally:
            asking.tidy()


@dataclass(eq=False)
class _Asking:
    """The state of one call of `outputs_of`.

    Attributes:
        flights: batches that were sent, in order.
        files: those of inputs that are here and on the board.
        size: how many inputs the next batch has.
        sending_us: the shortest time that sending a batch took.
        well, failed: how many inputs are known to have outputs, and how many have none.
    """

    session: Session
    job: Job
    deadlines: MeasureProtocol
    canary: Job | None
    scratch: Path
    flights: deque[_Batch] = field(default_factory=deque)
    files: list[Path] = field(default_factory=list)
    size: int = FIRST_BATCH
    sending_us: float = math.inf
    well: int = 0
    failed: int = 0
    bench_checked: bool = False

    def __post_init__(self) -> None:
        self._sha256, self._numbers = sha256_of(self.job.model), count()

    def run(self, inputs: Iterator[bytes]) -> Iterator[InputOutputs]:
        waiting = True
        while waiting or self.flights:
            while waiting and len(self.flights) < 2:
                given = tuple(islice(inputs, self.size))
                waiting = bool(given)
                if given:
                    self._depart(self._batch(self.job, given))
            if self.flights:
                yield from self._landed(self.flights.popleft())
            if sum(path.stat().st_size for path in self.files) > KEPT_BYTES:
                self.tidy(but=[flight.task.job.input for flight in self.flights])

    def tidy(self, but: Collection[Path | None] = ()) -> None:
        """No input is asked for twice: here and on the board, the room is needed."""
        done = [path for path in self.files if path not in but]
        with suppress(BoardError):
            self.session.stage.discard(done)
        for path in done:
            path.unlink()
        self.files = [path for path in self.files if path in but]

    def _batch(self, job: Job, inputs: Sequence[bytes]) -> _Batch:
        """The batch, its file written."""
        path = self.scratch / f"{next(self._numbers)}.bin"
        path.write_bytes(b"".join(inputs))
        self.files.append(path)
        sha256 = self._sha256 if job == self.job else sha256_of(job.model)
        key = job.under(self.session.conditions).key()
        job_id = digest([sha256, key, "outputs", sha256_of(path), len(inputs)])
        task = RoundTask(replace(job, input=path, expected=None), "", 0, job_id, sha256)
        return _Batch(task, tuple(inputs))

    def _depart(self, batch: _Batch) -> None:
        self._send(batch)
        self.flights.append(batch)

    def _send(self, batch: _Batch) -> None:
        """A lost link shows when the answer is waited for."""
        config, protocol = self.session.board.config, replace(self.deadlines, warmup_runs=0, runs=len(batch.inputs))
        batch.sent, begun = False, time.perf_counter()
        with suppress(LinkLost, BoardTimeout):
            paths = self.session.stage_many(files_of(batch.task.job))
            key = batch.task.job.under(self.session.conditions).key()
            self.session.send(request_of(batch.task, config, key, protocol, paths, measured="outputs"))
            batch.sent, self.sending_us = True, min(self.sending_us, 1e6 * (time.perf_counter() - begun))

    def _landed(self, batch: _Batch) -> list[InputOutputs]:
        """The batch's outputs, those of its inputs one by one where it failed as a whole."""
        answer = self._answered(batch)
        if answer.failure is None:
            return self._read(batch, answer)
        if len(batch.inputs) == 1:
            return [self._failed(answer.failure.reason)]
        return [found for one in batch.inputs for found in self._landed(self._alone(self.job, one))]

    def _alone(self, job: Job, one: bytes) -> _Batch:
        """One input, sent when the board has answered all else: answers come in the order of the requests."""
        for flight in self.flights:
            self._answered(flight)
        batch = self._batch(job, [one])
        self._send(batch)
        return batch

    def _answered(self, batch: _Batch) -> Answer:
        """The answer; over a fresh link once, with what else is under way. Raises BoardError."""
        if batch.answer is None:
            try:
                batch.answer = self._received(batch)
            except (LinkLost, BoardTimeout, BoardFault):
                self.session.reconnect()
                for one in dict.fromkeys((batch, *self.flights)):
                    if one.answer is None:
                        self._send(one)
                batch.answer = self._received(batch)
            with suppress(LinkLost, BoardTimeout):
                self.session.acknowledge([batch.task.job_id])
        return batch.answer

    def _received(self, batch: _Batch) -> Answer:
        name = self.session.board.name
        if not batch.sent:
            raise LinkLost(f"board {name}: the link was lost before inputs of {batch.task.job.name} were there")
        answer = self.session.receive(batch.task.job_id)
        if answer.failure is not None and answer.failure.kind != "model":
            raise BoardFault(f"board {name}: {batch.task.job.name} {answer.failure.reason}: what changed on the board?")
        return answer

    def _read(self, batch: _Batch, answer: Answer) -> list[InputOutputs]:
        config, found = self.session.board.config, answer.outcome
        who = f"board {config.name}: the answer to {batch.task.job.name}"
        if (
            not isinstance(found, ModelOutputs)
            or answer.model_sha256 != batch.task.model_sha256
            or not len(found.outputs) == len(found.invoke_us) == len(batch.inputs)
        ):
            raise BoardError(f"{who} is about other inputs or another file: clean the board's workdir and run again")
        if config.delegate and not found.delegated_nodes and not config.allow_fallback:
            raise ModelError(
                f"board {config.name}: {Path(config.delegate).name} took no part of {batch.task.job.name}, it ran on "
                "the CPU: see `hilnas profile`, or set allow_fallback"
            )
        self.well += len(batch.inputs)
        self.size = self._next_size(found, len(batch.inputs[0]))
        return [InputOutputs(data, us) for data, us in zip(found.outputs, found.invoke_us, strict=True)]

    def _next_size(self, found: ModelOutputs, input_bytes: int) -> int:
        """As many inputs as make sending and loading a small share of a batch, and fit into a line."""
        first_us, *others_us = found.invoke_us
        each_us = statistics.median(others_us) if others_us else first_us
        wanted = (self.sending_us + found.load_us + first_us) / (FIXED_SHARE * max(each_us, 1))
        fitting = BATCH_BYTES // max(input_bytes, len(found.outputs[0]), 1)
        return max(1, min(round(max(wanted, FIRST_BATCH)), fitting, MOST_INPUTS))

    def _failed(self, reason: str) -> InputOutputs:
        """Of an input: the model's failure where the known-good model runs, or the model's on all inputs."""
        self.failed += 1
        self._check_bench(reason)
        if not self.well and self.failed >= ALL_FAIL:
            board = self.session.board.name
            raise ModelError(f"board {board}: {self.job.name} fails on each of the first {ALL_FAIL} inputs: {reason}")
        return InputOutputs(b"", failure=reason)

    def _check_bench(self, why: str) -> None:
        """Raises BoardError where the known-good model does not run; asked once."""
        if self.bench_checked or self.canary is None or self.canary.input is None:
            return
        failure = self._answered(self._alone(self.canary, self.canary.input.read_bytes())).failure
        self.bench_checked = True
        if failure is not None:
            name = self.session.board.name
            raise BoardError(
                f"board {name}: {self.job.name} failed ({why}), and so does the known-good model: {failure.reason}: "
                f"fix the bench (`hilnas board check {name}`), then go on"
            )
