"""The record of one measurement, and what must match before two of them are compared.

Pure and cheap to import: standard library only. `to_json` and `from_json` are inverses and speak in dicts
of plain JSON values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from hil.errors import UsageError

FailureKind = Literal["model", "board", "link", "harness"]
Status = Literal["ok", "failed"]

NOT_COMPARED = frozenset({"temperature_c", "boot_id", "python"})


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
    """Under what a number was taken.

    Attributes:
        board: the entry's name in boards.toml; `kind`: ssh, loopback.
        machine: instruction set, as `uname -m` says; `soc`: the device tree's model, or the CPU's name.
        runtime: package and version of the TFLite runtime, "ai_edge_litert 2.3.0".
        delegate: "none", or file name @ first digits of its sha256; then its options and the board's
            environment, since both decide where the graph runs.
        kernels: xnnpack, builtin or reference; `threads`: of the interpreter.
        temperature_c: the hottest zone when the session began, degrees Celsius; None where there is none.
        boot_id: changes when the board reboots.
    """

    board: str
    kind: str
    machine: str
    soc: str
    kernel: str
    runtime: str
    delegate: str
    kernels: str
    threads: int
    governor: str
    temperature_c: float | None
    boot_id: str
    python: str

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UsageError(f"threads of {self.board} is {self.threads}: give 1 or more in boards.toml")

    def key(self) -> str:
        """16 hex digits over everything that must match before two latencies are compared."""
        compared = {name: value for name, value in asdict(self).items() if name not in NOT_COMPARED}
        return digest(compared)[:16]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Conditions:
        return cls(**_known(cls, raw))


@dataclass(frozen=True)
class Parity:
    """How the outputs on the board compare with the expected ones.

    Attributes:
        elements: number of output elements; `mismatched`: how many of them differ at all.
        max_abs_diff: the largest difference, in the output's own units (LSB for integers).
    """

    elements: int
    mismatched: int
    max_abs_diff: float

    def __post_init__(self) -> None:
        if not 0 <= self.mismatched <= self.elements or self.max_abs_diff < 0:
            raise UsageError(f"impossible parity {self}: mend the runner that reported it")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Parity:
        return cls(**_known(cls, raw))


@dataclass(frozen=True)
class Failure:
    """Whose fault, and in one line why."""

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
class Measurement:
    """One model, run in one round on one board. A failed one carries no latencies, so none is ever used.

    Attributes:
        job_id: what makes it unique: files, conditions, protocol and round.
        load_us: interpreter creation, delegate and tensor allocation, microseconds.
        first_us: first inference, which compiles the graph on an NPU, microseconds.
        latencies_us: the steady runs, raw and in order, microseconds.
        operators: names of the model's operators in order, where the runtime tells them.
        delegated_nodes: number of graph parts that a delegate took.
        started_at: the host's clock, ISO 8601 in UTC.
    """

    job_id: str
    model: str
    model_sha256: str
    round: int
    status: Status
    load_us: int
    first_us: int
    latencies_us: tuple[int, ...]
    conditions: Conditions
    parity: Parity | None
    operators: tuple[str, ...]
    delegated_nodes: int
    failure: Failure | None
    started_at: str

    def __post_init__(self) -> None:
        ok = self.status == "ok"
        if self.status not in get_args(Status) or ok != (self.failure is None):
            raise UsageError(f"measurement of {self.model}: status {self.status!r} and failure disagree")
        if ok != bool(self.latencies_us):
            raise UsageError(f"measurement of {self.model}: an ok one has latencies, a failed one has none")
        if min(self.load_us, self.first_us, *self.latencies_us, self.round, self.delegated_nodes) < 0:
            raise UsageError(f"measurement of {self.model}: a time or count is negative")

    def to_json(self) -> dict[str, Any]:
        raw = asdict(self)
        raw["latencies_us"], raw["operators"] = list(self.latencies_us), list(self.operators)
        return raw

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Measurement:
        """Raises UsageError when a field is missing, unknown or contradicts another."""
        known = _known(cls, raw)
        known["latencies_us"], known["operators"] = tuple(raw["latencies_us"]), tuple(raw["operators"])
        known["conditions"] = Conditions.from_json(raw["conditions"])
        known["parity"] = None if raw["parity"] is None else Parity.from_json(raw["parity"])
        known["failure"] = None if raw["failure"] is None else Failure.from_json(raw["failure"])
        return cls(**known)


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value in its one canonical text form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
