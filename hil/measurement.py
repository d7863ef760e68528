"""The record of one measurement, and what must match before two of them are compared.

Pure and cheap to import: standard library only. `to_json` and `from_json` are inverses and speak in dicts
of plain JSON values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from hil.errors import UsageError

FailureKind = Literal["model", "board", "link", "harness"]
Status = Literal["ok", "failed"]

Cache = Literal["none", "cold", "warm", "unused"]

NOT_COMPARED = frozenset({"unit", "temperature_c", "boot_id", "python"})

WHOLE_MICROSECONDS_NS = 1000
"""The step in which benchmark_model counts, as did earlier versions of this record."""


def _known(cls: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments in `raw`; a missing or unknown key is a UsageError."""
    names = {field.name for field in fields(cls)}
    if set(raw) != names:
        odd = ", ".join(sorted(set(raw) ^ names))
        raise UsageError(
            f"{cls.__name__} record does not have the expected fields ({odd}): "
            "it was written by another version of hilnas; measure again into a new store"
        )
    return dict(raw)


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement.

    Attributes:
        board: the entry's name in boards.toml, or its fleet's: boards of one fleet are alike.
        unit: the entry's name; not compared.
        kind: ssh, loopback, ...
        machine: instruction set, as `uname -m` prints it.
        soc: the device tree's model, or the CPU's name.
        kernel: the kernel's release.
        bsp: the name of the distribution in /etc/os-release.
        npu: driver version and clock of the NPU, "galcore 6.4.11; ml_core 1000 MHz", or "none".
        driver: "python" (the runtime's interpreter) or "benchmark_model".
        runtime: package, version and first digits of the library's sha256, "ai_edge_litert 2.3.0@0123456789ab".
        delegate: "none", or file name @ first digits of its sha256; then its options and the board's
            environment, since both decide where the graph runs.
        kernels: xnnpack, builtin or reference.
        threads: of the interpreter.
        governor: the CPU governor during the runs.
        temperature_c: the hottest zone when the session began, degrees Celsius; None without one; not compared.
        boot_id: changes when the board reboots; not compared.
        python: version of the board's Python; not compared.
        input_shapes: of the inputs of the model that was measured (hil/input_shape.py); "" where they have the sizes of
            its file, as a session's conditions always do.
    """

    board: str
    unit: str
    kind: str
    machine: str
    soc: str
    kernel: str
    bsp: str
    npu: str
    driver: str
    runtime: str
    delegate: str
    kernels: str
    threads: int
    governor: str
    temperature_c: float | None
    boot_id: str
    python: str
    input_shapes: str = ""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UsageError(f"threads of {self.board} is {self.threads}: give 1 or more in boards.toml")

    def key(self) -> str:
        """16 hex digits over everything that must match before two latencies are compared."""
        compared = {name: value for name, value in self.to_json().items() if name not in NOT_COMPARED}
        return digest(compared)[:16]

    def differing(self, other: Conditions) -> list[str]:
        """By name what keeps latencies under these conditions and those from being compared; empty: nothing does."""
        compared = (field.name for field in fields(self) if field.name not in NOT_COMPARED)
        return [name for name in compared if getattr(self, name) != getattr(other, name)]

    def to_json(self) -> dict[str, Any]:
        raw = asdict(self)
        if not self.input_shapes:
            del raw["input_shapes"]  # so that keys and records are those of before there were any
        return raw

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Conditions:
        return cls(**_known(cls, {"input_shapes": "", **raw}))


@dataclass(frozen=True)
class Parity:
    """How the outputs on the board compare with the expected ones.

    Attributes:
        elements: number of output elements.
        mismatched: how many of them differ at all.
        max_abs_diff: the largest difference, in the output's own units (LSB for integers).
    """

    elements: int
    mismatched: int
    max_abs_diff: float

    def __post_init__(self) -> None:
        if not 0 <= self.mismatched <= self.elements or self.max_abs_diff < 0:
            raise UsageError(f"impossible parity {self}: fix the runner that reported it")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Parity:
        return cls(**_known(cls, raw))


@dataclass(frozen=True)
class Failure:
    """Why a measurement failed.

    Attributes:
        kind: what is at fault.
        reason: why, in one line.
    """

    kind: FailureKind
    reason: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(FailureKind):
            raise UsageError(f"failure kind {self.kind!r} is none of {', '.join(get_args(FailureKind))}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Failure:
        return cls(**_known(cls, raw))


@dataclass(frozen=True)
class Readings:
    """The board's own instruments at one moment; None where it has none.

    Attributes:
        temperature_c: the hottest zone, degrees Celsius.
        frequency_khz: the fastest core's clock.
    """

    temperature_c: float | None = None
    frequency_khz: int | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Readings:
        return cls(**_known(cls, raw))


@dataclass(frozen=True)
class Measurement:
    """One model, run in one round on one board. A failed one carries no latencies, so none is ever used.

    Attributes:
        job_id: digest of files, conditions, protocol and round.
        load_us: interpreter creation, delegate and tensor allocation, microseconds.
        first_us: first inference, which compiles the graph on an NPU, microseconds.
        latencies_us: the steady runs, raw and in order, microseconds; of short runs, each the mean of `calls` of them.
        operators: names of the model's operators in order, where the runtime reports them.
        delegated_nodes: number of graph parts that a delegate took.
        cpu_operators: operators that the configured delegate left to the CPU; empty without a delegate.
        started_at: the host's clock, ISO 8601 in UTC.
        warmup_us: all runs between the first and the steady ones together, microseconds.
        warmup_runs: how many those are.
        cache: whether the NPU's compiled graph was there before ("warm") or not ("cold"); "none" without a cache,
            "unused" where one is configured and the driver kept no graph there.
        before: read before the steady runs.
        after: read after the steady runs.
        others_busy: share of the cores' time that other processes had during the steady runs, 0 to 1.
        cores: that the board's process might use; None where it is not known (records of an earlier version).
        calls: of the model that one latency is the mean of.
        clock_ns: the smallest step of the clock that timed them, nanoseconds.
        class_map_us: how much of each run was the CPU's after the inference (`hil.job.Job.class_map`), at the least;
            None where a run is the inference alone.
        path: the model's file on the host; "" where it is not known (records of an earlier version).
        flags: why the latencies deserve less trust (hil/trust.py); empty when nothing speaks against them.
        attempt: 0, and one more each time that a failed job is measured again.
    """

    job_id: str
    model: str
    model_sha256: str
    round: int
    status: Status
    load_us: int
    first_us: int
    latencies_us: tuple[float, ...]
    conditions: Conditions
    parity: Parity | None
    operators: tuple[str, ...]
    delegated_nodes: int
    failure: Failure | None
    started_at: str
    warmup_us: int = 0
    warmup_runs: int = 0
    cache: Cache = "none"
    before: Readings = Readings()
    after: Readings = Readings()
    others_busy: float = 0.0
    cpu_operators: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    attempt: int = 0
    cores: int | None = None
    calls: int = 1
    clock_ns: int = WHOLE_MICROSECONDS_NS
    path: str = ""
    class_map_us: float | None = None

    def __post_init__(self) -> None:
        ok = self.status == "ok"
        if self.status not in get_args(Status) or ok != (self.failure is None):
            raise UsageError(f"measurement of {self.model}: status {self.status!r} and failure disagree")
        if ok != bool(self.latencies_us):
            raise UsageError(f"measurement of {self.model}: an ok one has latencies, a failed one has none")
        counts = (self.load_us, self.first_us, self.warmup_us, self.warmup_runs, self.round, self.delegated_nodes)
        if min(
            *counts, *self.latencies_us, self.attempt, self.others_busy, self.class_map_us or 0
        ) < 0 or self.cache not in get_args(Cache):
            raise UsageError(f"measurement of {self.model}: a time or count is negative, or its cache unknown")
        if min(self.calls, self.clock_ns, 1 if self.cores is None else self.cores) < 1:
            raise UsageError(f"measurement of {self.model}: no call, no step of the clock or no core")

    @property
    def board_us(self) -> float:
        """How long the board ran the model."""
        return self.load_us + self.first_us + self.warmup_us + self.calls * sum(self.latencies_us)

    def to_json(self) -> dict[str, Any]:
        raw = {**asdict(self), "conditions": self.conditions.to_json()}
        for name in ("latencies_us", "operators", "cpu_operators", "flags"):
            raw[name] = list(raw[name])
        if self.class_map_us is None:
            del raw["class_map_us"]  # so that records are those of before there was any
        return raw

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Measurement:
        """Raises UsageError when a field is missing, unknown or contradicts another."""
        known = _known(cls, {"class_map_us": None, **raw})
        for name in ("latencies_us", "operators", "cpu_operators", "flags"):
            known[name] = tuple(raw[name])
        for name in ("before", "after"):
            known[name] = Readings.from_json(raw[name])
        known["conditions"] = Conditions.from_json(raw["conditions"])
        known["parity"] = None if raw["parity"] is None else Parity.from_json(raw["parity"])
        known["failure"] = None if raw["failure"] is None else Failure.from_json(raw["failure"])
        return cls(**known)


def now() -> str:
    """The host's clock, ISO 8601 in UTC."""
    return ago(0.0)


def ago(seconds: float) -> str:
    """As `now`, so long before."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value in its one canonical text form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
