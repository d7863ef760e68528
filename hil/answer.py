"""What the runner on a board (board_scripts/runner.py) writes to the host, one JSON object per line, read strictly."""

from __future__ import annotations

import base64
import itertools
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from hil.checks import (
    Check,
    counted,
    json_object,
    list_of,
    malformed,
    number,
    optional,
    record,
    require,
    text,
    truth,
    whole,
)  # fmt: skip
from hil.measurement import WHOLE_MICROSECONDS_NS, Cache, Failure, FailureKind, Parity, Readings, ago

LONGEST_S = 7 * 86400
LONGEST_US = LONGEST_S * 10**6
"""No deadline is longer, so no time is."""

LARGEST_BYTES = 1 << 30
"""No batch of outputs is larger."""

UNREAD = Readings()


@dataclass(frozen=True)
class TimedRuns:
    """The runs of one model in one round.

    Attributes:
        load_us: interpreter creation, delegate and tensor allocation, microseconds.
        first_us: the first inference, microseconds.
        warmup_us: all runs between the first and the steady ones together, microseconds.
        steady: whether the warm-up ended because two windows of runs agreed.
        latencies_us: the steady runs in order, microseconds; each the mean of `calls`; empty for a recorded failure.
        parity: None where there was no expected output.
        operators: the model's operators in order.
        delegated_nodes: number of graph parts that a delegate took.
        cpu_operators: those that the configured delegate left.
        cache: see `hil.measurement.Measurement`.
        before: read before the steady runs.
        after: read after the steady runs.
        others_busy: share of the cores' time that other processes had, 0 to 1.
        averaged: whether each latency is a mean or median of several runs, as benchmark_model prints it.
        cores, calls, clock_ns: see `hil.measurement.Measurement`.
        class_map_us: see `hil.measurement.Measurement`.
        delegate_said: why the delegate took no more of the model; empty where it printed nothing.
    """

    load_us: int = 0
    first_us: int = 0
    warmup_us: int = 0
    warmup_runs: int = 0
    steady: bool = True
    latencies_us: tuple[float, ...] = ()
    parity: Parity | None = None
    operators: tuple[str, ...] = ()
    delegated_nodes: int = 0
    cpu_operators: tuple[str, ...] = ()
    cache: Cache = "none"
    before: Readings = UNREAD
    after: Readings = UNREAD
    others_busy: float = 0.0
    averaged: bool = False
    delegate_said: str = ""
    cores: int | None = None
    calls: int = 1
    clock_ns: int = WHOLE_MICROSECONDS_NS
    class_map_us: float | None = None


@dataclass(frozen=True)
class ProgramRuns:
    """What benchmark_model printed, in any pass: one text per invocation. The other fields are as in `TimedRuns`."""

    texts: tuple[str, ...]
    cache: Cache
    before: Readings
    after: Readings
    others_busy: float
    cores: int


@dataclass(frozen=True)
class MemoryUse:
    """Resident memory of the process that ran the model (`hil.passes.Memory`), kB; None: the board does not show it."""

    before_kb: int | None
    loaded_kb: int | None
    peak_kb: int | None
    cma_kb: int | None


@dataclass(frozen=True)
class LayerLog:
    """What the delegate's library printed during one steady inference."""

    log: str


@dataclass(frozen=True)
class ModelOutputs:
    """What a model gives for several inputs, in their order.

    Attributes:
        outputs: for each input the raw little-endian bytes of all output tensors, one after the other.
        load_us: interpreter creation, delegate and tensor allocation, microseconds.
        invoke_us: the inference of each input, microseconds; the first one may compile the graph.
        delegated_nodes: number of graph parts that a delegate took.
    """

    outputs: tuple[bytes, ...]
    load_us: int
    invoke_us: tuple[int, ...]
    delegated_nodes: int


Outcome: TypeAlias = TimedRuns | ProgramRuns | MemoryUse | LayerLog | ModelOutputs

_time_us = whole(LONGEST_US)
_latency_us = number(0, LONGEST_US)
_some = counted(10**9)
_readings = record(temperature_c=optional(number(-300.0, 1000.0)), frequency_khz=optional(whole(10**9)))
_parity = record(elements=whole(10**12), mismatched=whole(10**12), max_abs_diff=number(0.0, sys.float_info.max))
_kilobytes = optional(whole(10**12))
_HEAD: Mapping[str, Check] = {
    "id": optional(text),
    "ok": truth,
    "conditions": optional(text),
    "kept_s": number(0.0, LONGEST_S),
}
_CIRCUMSTANCES: Mapping[str, Check] = {
    "cache": lambda value: value in get_args(Cache),
    "before": _readings,
    "after": _readings,
    "others_busy": number(0.0, 1.0),
    "cores": _some,
}
FAILED: Mapping[str, Check] = {
    **_HEAD,
    "failure": record(kind=lambda value: value in get_args(FailureKind), stage=text, reason=text),
}
TIMED: Mapping[str, Check] = {
    **_HEAD,
    "model_sha256": text,
    "load_us": _time_us,
    "first_us": _time_us,
    "warmup_us": _time_us,
    "warmup_runs": whole(10**9),
    "steady": truth,
    "latencies_us": list_of(_latency_us, least=1),
    "calls": _some,
    "clock_ns": _some,
    "parity": optional(_parity),
    "operators": list_of(text),
    "delegated_nodes": whole(10**9),
    "cpu_operators": list_of(text),
    **_CIRCUMSTANCES,
}
TIMED_TO_CLASS_MAP: Mapping[str, Check] = {**TIMED, "class_map_us": _latency_us}
PROGRAM: Mapping[str, Check] = {
    **_HEAD, "model_sha256": text, "texts": list_of(text, least=1), **_CIRCUMSTANCES,
}  # fmt: skip
MEMORY: Mapping[str, Check] = {
    **_HEAD, "model_sha256": text, "before_kb": _kilobytes, "loaded_kb": _kilobytes, "peak_kb": _kilobytes,
    "cma_kb": _kilobytes,
}  # fmt: skip
LAYERS: Mapping[str, Check] = {**_HEAD, "model_sha256": text, "log": text}
OUTPUTS: Mapping[str, Check] = {
    **_HEAD, "model_sha256": text, "load_us": _time_us, "invoke_us": list_of(_time_us, least=1),
    "sizes": list_of(whole(LARGEST_BYTES), least=1), "outputs": text, "delegated_nodes": whole(10**9),
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        id: the request's; None where the runner could not read the request.
        conditions: the request's.
        model_sha256: of the file that ran; None for a failure.
        outcome: what was measured; None for a failure, unless a replay knows more of it.
        taken_at: when the model ran, ISO 8601 in UTC, if that is not just now: the board kept the answer, or it was
            recorded; None: just now.
    """

    id: str | None
    conditions: str | None
    model_sha256: str | None
    failure: Failure | None
    outcome: Outcome | None
    taken_at: str | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], who: str) -> Answer:
        """Raises BoardError naming the first field that is missing, wrong or unknown; `who` begins its message."""
        raw = {"kept_s": 0.0, **raw}  # only an answer that waited in the board's spool has it
        if "failure" in raw:
            raw = {"conditions": None, **raw}  # a request that was refused unread has none
        form = _form_of(raw)
        require(raw, form, who)
        failure = Failure(raw["failure"]["kind"], raw["failure"]["reason"]) if form is FAILED else None
        if raw["ok"] != (failure is None):
            raise malformed(who, "ok", f"is {raw['ok']}, which `failure` contradicts")
        outcome = None if failure is not None else _outcome(raw, form, who)
        taken_at = ago(raw["kept_s"]) if raw["kept_s"] else None
        return cls(raw["id"], raw["conditions"], raw.get("model_sha256"), failure, outcome, taken_at)


@dataclass(frozen=True)
class Beat:
    """The runner is alive; what it works on takes longer."""


@dataclass(frozen=True)
class Hello:
    """The runner's first line.

    Attributes:
        ready: whether it takes requests.
        reason: why it does not; empty where it does.
        busy: somebody else has the board.
        stuck: our own last runner there does not end.
    """

    ready: bool
    reason: str = ""
    busy: bool = False
    stuck: bool = False

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], who: str) -> Hello:
        """Raises BoardError naming the first field that is missing, wrong or unknown."""
        if raw.get("ready") is True:
            require(raw, {"ready": truth, "runtime": text}, who)
            return cls(ready=True)
        require(raw, {"ready": truth, "reason": text, "busy": truth, "stuck": truth}, who)
        return cls(ready=False, reason=raw["reason"], busy=raw["busy"], stuck=raw["stuck"])


def read_line(line: str, who: str) -> Answer | Beat:
    """Any line after the first. Raises BoardError; `who` begins its message."""
    raw = json_object(line, who)
    if "beat" in raw:
        require(raw, {"beat": optional(text), "stage": text}, who)
        return Beat()
    return Answer.from_json(raw, who)


def _form_of(raw: Mapping[str, Any]) -> Mapping[str, Check]:
    """The fields that an answer with these fields has to have."""
    forms = {"failure": FAILED, "texts": PROGRAM, "peak_kb": MEMORY, "log": LAYERS, "outputs": OUTPUTS}
    forms["class_map_us"] = TIMED_TO_CLASS_MAP
    return next((form for name, form in forms.items() if name in raw), TIMED)


def _outcome(raw: Mapping[str, Any], form: Mapping[str, Check], who: str) -> Outcome:
    if form is MEMORY:
        return MemoryUse(raw["before_kb"], raw["loaded_kb"], raw["peak_kb"], raw["cma_kb"])
    if form is LAYERS:
        return LayerLog(raw["log"])
    if form is OUTPUTS:
        outputs = _unpacked(raw["outputs"], raw["sizes"], who)
        return ModelOutputs(outputs, raw["load_us"], tuple(raw["invoke_us"]), raw["delegated_nodes"])
    before, after = Readings.from_json(raw["before"]), Readings.from_json(raw["after"])
    if form is PROGRAM:
        return ProgramRuns(tuple(raw["texts"]), raw["cache"], before, after, raw["others_busy"], raw["cores"])
    return TimedRuns(
        load_us=raw["load_us"],
        first_us=raw["first_us"],
        warmup_us=raw["warmup_us"],
        warmup_runs=raw["warmup_runs"],
        steady=raw["steady"],
        latencies_us=tuple(raw["latencies_us"]),
        parity=_parity_of(raw["parity"], who),
        operators=tuple(raw["operators"]),
        delegated_nodes=raw["delegated_nodes"],
        cpu_operators=tuple(raw["cpu_operators"]),
        cache=raw["cache"],
        before=before,
        after=after,
        others_busy=raw["others_busy"],
        cores=raw["cores"],
        calls=raw["calls"],
        clock_ns=raw["clock_ns"],
        class_map_us=raw.get("class_map_us"),
    )


def _parity_of(raw: Mapping[str, Any] | None, who: str) -> Parity | None:
    if raw is None:
        return None
    elements, mismatched, largest = raw["elements"], raw["mismatched"], raw["max_abs_diff"]
    if not 0 < elements >= mismatched or (mismatched == 0) != (largest == 0):
        raise malformed(who, "parity", f"is {str(dict(raw))[:100]!r}")
    return Parity.from_json(raw)


def _unpacked(packed: str, sizes: Sequence[int], who: str) -> tuple[bytes, ...]:
    """The outputs of so many bytes each, never more than they are to have."""
    whole_size, unpacker = sum(sizes), zlib.decompressobj()
    try:
        content = unpacker.decompress(base64.b64decode(packed, validate=True), min(whole_size, LARGEST_BYTES) + 1)
    except (ValueError, zlib.error) as error:  # base64's error is a ValueError
        raise malformed(who, "outputs", f"cannot be unpacked ({error})") from error
    if len(content) != whole_size:
        raise malformed(who, "outputs", f"has not the {whole_size} bytes that it is to have")
    ends = list(itertools.accumulate(sizes))
    return tuple(content[end - size : end] for size, end in zip(sizes, ends, strict=True))
