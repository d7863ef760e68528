"""A model's memory and its layers, each in a separate pass: both would slow down a timed run."""

from __future__ import annotations

import re
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from hil.answer import LayerLog, MemoryUse, Outcome, ProgramRuns
from hil.benchmark_model import NUMBER, ProfiledLayer, read_report
from hil.errors import BoardError, BoardFault, ModelError
from hil.job import Job, MeasureProtocol, RoundTask, files_of, request_of
from hil.request import Pass
from hil.sessions import JobSession
from hil.stage import sha256_of

# As VeriSilicon's library prints it with CNN_PERF=1 and VIV_VX_DEBUG_LEVEL=1 in logs that users published. Other
# versions may print something else, so the text is kept beside the rows.
LAYER = re.compile(
    r"layer[_ ]id\s*: *\d+ +layer[_ ]name *: *(?P<name>\S+)(?: +operation\[\d+\] *: *(?P<kind>.*?)\.?$)?"
)
EXECUTION = re.compile(rf"execution time *: *(?P<time>{NUMBER}) *(?P<unit>us|ms)")
CLIPPED = "[... left out here: "


@dataclass(frozen=True)
class Memory:
    """Resident memory of the process that runs the model, bytes; None where the driver does not report it.

    Attributes:
        before_bytes: before the model was loaded, the runtime included.
        loaded_bytes: the peak when tensors were allocated.
        peak_bytes: the peak after two inferences. Pages of the model's file and of the runtime's code that these
            touched count, as the kernel counts them.
        cma_bytes: by how much the memory that NPU and GPU allocate from shrank meanwhile, on the whole board.
    """

    model: str
    before_bytes: int | None
    loaded_bytes: int | None
    peak_bytes: int
    cma_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Layers:
    """The layers of one inference in order; none where the driver prints none, as on a CPU.

    Attributes:
        complete: false where the log was too long to bring back whole; its middle is missing then.
        log: what the driver's library printed, or benchmark_model.
    """

    model: str
    layers: tuple[ProfiledLayer, ...]
    complete: bool
    log: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def memory_of(session: JobSession, job: Job, protocol: MeasureProtocol) -> Memory:
    """Raises ModelError, BoardError; UsageError for a replay."""
    board = session.board.name
    match _ask(session, job, protocol, "memory"):
        case ProgramRuns(texts=(text, *_)):
            peak_mb = read_report(text).peak_mb
            if peak_mb is None:
                raise BoardError(f"board {board}: its benchmark_model is too old to report its peak memory")
            return Memory(job.name, None, None, round(peak_mb * (1 << 20)), None)
        case MemoryUse(peak_kb=None):
            raise BoardError(f"board {board}: its /proc/self/status has no VmHWM: there is nothing to read")
        case MemoryUse() as use:
            before, loaded, peak, cma = map(_bytes, (use.before_kb, use.loaded_kb, use.peak_kb, use.cma_kb))
            return Memory(job.name, before, loaded, peak or 0, cma)
        case outcome:
            raise _other_pass(session, job, outcome)


def layers_of(session: JobSession, job: Job, protocol: MeasureProtocol) -> Layers:
    """Raises ModelError, BoardError; UsageError for a replay.

    The times are longer than a timed run's: the driver waits for each layer.
    """
    match _ask(session, job, protocol, "layers"):
        case ProgramRuns(texts=(log, *_)):
            layers = read_vendor_log(log) or read_report(log).layers
        case LayerLog(log=log):
            layers = read_vendor_log(log)
        case outcome:
            raise _other_pass(session, job, outcome)
    return Layers(job.name, layers, CLIPPED not in log, log)


def read_vendor_log(text: str) -> tuple[ProfiledLayer, ...]:
    """The layers that have an execution time. Never raises: a line that reads otherwise is left out."""
    layers: list[ProfiledLayer] = []
    current: re.Match[str] | None = None
    for line in text.splitlines():
        if found := LAYER.search(line[:2000]):
            current = found
        elif current is not None and (found := EXECUTION.search(line[:2000])):
            time_us = float(found["time"]) * (1000 if found["unit"] == "ms" else 1)
            layers.append(ProfiledLayer(current["name"], (current["kind"] or "").replace(" target:", " on "), time_us))
            current = None
    return tuple(layers)


def _ask(session: JobSession, job: Job, protocol: MeasureProtocol, measured: Pass) -> Outcome | None:
    """What the runner measured in that pass; nothing of it is stored."""
    config, sha256 = session.board.config, sha256_of(job.model)
    task = RoundTask(job, "", 0, uuid.uuid4().hex, sha256)
    paths = session.stage_many(files_of(job))
    session.send(request_of(task, config, job.under(session.conditions).key(), protocol, paths, measured=measured))
    answer = session.receive(task.job_id)
    session.acknowledge([task.job_id])
    if answer.failure is not None:
        kind = ModelError if answer.failure.kind == "model" else BoardFault
        raise kind(f"board {config.name}: {job.name} {answer.failure.reason}")
    if answer.model_sha256 != sha256:
        raise BoardError(f"board {config.name}: the answer is about another file than {job.model}: clean its workdir")
    return answer.outcome


def _other_pass(session: JobSession, job: Job, outcome: Outcome | None) -> BoardError:
    return BoardError(
        f"board {session.board.name}: the answer to {job.name} is of another pass ({type(outcome).__name__}): "
        "it was changed; clean the board's workdir and measure again"
    )


def _bytes(kilobytes: int | None) -> int | None:
    return None if kilobytes is None else kilobytes << 10
