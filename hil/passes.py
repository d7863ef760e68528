"""What a timed run must not be burdened with, each in a pass of its own: a model's memory and its layers."""

from __future__ import annotations

import re
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from hil.benchmark_model import NUMBER, Layer, read_report
from hil.errors import BoardError, BoardFault, ModelError, UsageError
from hil.job import Job, MeasureProtocol, Task, files_of, request_of
from hil.session import Session
from hil.stage import sha256_of

# As VeriSilicon's library prints it with CNN_PERF=1 and VIV_VX_DEBUG_LEVEL=1 in logs that users published; assumed
# for other versions of it, so that the text stays beside the rows.
LAYER = re.compile(
    r"layer[_ ]id\s*: *\d+ +layer[_ ]name *: *(?P<name>\S+)(?: +operation\[\d+\] *: *(?P<kind>.*?)\.?$)?"
)
EXECUTION = re.compile(rf"execution time *: *(?P<time>{NUMBER}) *(?P<unit>us|ms)")
CLIPPED = "[... left out here: "


@dataclass(frozen=True)
class Memory:
    """Resident memory of the process that runs the model, bytes; None is what the driver does not tell.

    Attributes:
        before: before the model was loaded, the runtime included; `loaded`: the peak when tensors were allocated.
        peak: the peak after two inferences. The model file's mapped pages and the runtime's own code that these
            touched count, as the kernel counts them.
        cma: by how much the memory that NPU and GPU allocate from shrank meanwhile, on the whole board.
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
    layers: tuple[Layer, ...]
    complete: bool
    log: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def memory_of(session: Session, job: Job, protocol: MeasureProtocol) -> Memory:
    """Raises ModelError, BoardError; UsageError for a replay."""
    answer = _ask(session, job, protocol, "memory")
    if "texts" in answer:
        peak_mb = read_report(answer["texts"][0]).peak_mb
        if peak_mb is None:
            raise BoardError(f"board {session.board.name}: its benchmark_model is too old to tell its peak memory")
        return Memory(job.name, None, None, round(peak_mb * (1 << 20)), None)
    if answer["peak_kb"] is None:
        raise BoardError(f"board {session.board.name}: its /proc/self/status has no VmHWM: there is nothing to read")
    before, loaded, peak, cma = (
        None if answer[key] is None else int(answer[key]) << 10
        for key in ("before_kb", "loaded_kb", "peak_kb", "cma_kb")
    )
    return Memory(job.name, before, loaded, peak or 0, cma)


def layers_of(session: Session, job: Job, protocol: MeasureProtocol) -> Layers:
    """Raises ModelError, BoardError. The times are slower than a timed run's: the driver waits for each layer."""
    answer = _ask(session, job, protocol, "layers")
    if "texts" in answer:
        log = answer["texts"][0]
        layers = read_vendor_log(log) or read_report(log).layers
    else:
        log = answer["log"]
        layers = read_vendor_log(log)
    return Layers(job.name, layers, CLIPPED not in log, log)


def read_vendor_log(text: str) -> tuple[Layer, ...]:
    """The layers that have an execution time. Never raises: a line that reads otherwise is left out."""
    layers: list[Layer] = []
    current: re.Match[str] | None = None
    for line in text.splitlines():
        if found := LAYER.search(line[:2000]):
            current = found
        elif current is not None and (found := EXECUTION.search(line[:2000])):
            time_us = float(found["time"]) * (1000 if found["unit"] == "ms" else 1)
            layers.append(Layer(current["name"], (current["kind"] or "").replace(" target:", " on "), time_us))
            current = None
    return tuple(layers)


def _ask(session: Session, job: Job, protocol: MeasureProtocol, name: str) -> dict[str, Any]:
    """The runner's answer in that pass; nothing of it is stored."""
    config, sha256 = session.board.config, sha256_of(job.model)
    if config.kind == "replay":
        raise UsageError(f"board {config.name} is a replay: memory and layers are not recorded, name a real board")
    task = Task(job, "", 0, uuid.uuid4().hex, sha256)
    paths = session.stage.stage_many(files_of(job))
    request = request_of(task, config, session.conditions.key(), protocol, paths)
    answer = session.run({**request, "pass": name})
    session.acknowledge([task.job_id])
    failure = answer.get("failure")
    if failure is not None:
        kind = ModelError if failure["kind"] == "model" else BoardFault
        raise kind(f"board {config.name}: {job.name} {failure['reason']}")
    if answer.get("model_sha256") != sha256:
        raise BoardError(f"board {config.name}: the answer is about another file than {job.model}: clean its workdir")
    return answer
