"""What a board is, and in what state: the line that board_scripts/probe.py prints, read strictly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hil.boards.board import CommandResult
from hil.boards.config import BoardConfig
from hil.checks import Check, json_object, list_of, number, optional, record, require, text, truth, values_of, whole
from hil.errors import BoardError

PROBE_TIMEOUT_S = 120.0  # importing the runtime from a slow SD card, once
MOST = 1 << 62

_number = number(-math.inf, math.inf)
_FIELDS: Mapping[str, Check] = {
    "machine": text,
    "soc": text,
    "kernel": text,
    "bsp": text,
    "npu": text,
    "runtime": optional(text),
    "runtime_version": text,
    "runtime_sha256": text,
    "delegate": optional(record(path=text, exists=truth, sha256=optional(text), reason=optional(text))),
    "program": optional(record(path=text, sha256=text)),
    "governor": text,
    "temperature_c": optional(_number),
    "temperatures_c": values_of(_number),
    "boot_id": text,
    "python": text,
    "memory_kb": values_of(whole(MOST)),
    "disk": optional(record(free_bytes=whole(MOST), total_bytes=whole(MOST))),
    "cores": whole(1 << 20),
    "load": optional(_number),
    "npu_device": truth,
    "npu_holders": list_of(record(pid=whole(MOST), command=text)),
    "clock_s": _number,
}


@dataclass(frozen=True)
class Library:
    """The delegate's shared library.

    Attributes:
        sha256: None where it cannot be read.
        reason: why it cannot be read, else None.
    """

    path: str
    exists: bool
    sha256: str | None
    reason: str | None


@dataclass(frozen=True)
class Program:
    """A benchmark_model."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Disk:
    """The disk that holds the workdir."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Holder:
    """A process that has the NPU's device open."""

    pid: int
    command: str


@dataclass(frozen=True)
class Facts:
    """A board at one moment; text that could not be read is "unknown".

    Attributes:
        machine: instruction set, as `uname -m` prints it.
        npu: driver version and clock of the NPU, or "none".
        runtime: package of the TFLite runtime; None without one, and `runtime_version` is the reason then.
        delegate: None where no delegate is configured.
        program: None where no benchmark_model matches.
        temperature_c: the hottest zone, degrees Celsius; None where there is no zone.
        temperatures_c: of each thermal zone, by its type.
        memory_kb: MemAvailable, CmaTotal and CmaFree, those that the kernel shows.
        load: processes that ran or waited to run, mean of the last minute.
        npu_device: whether /dev/galcore exists.
        clock_s: the board's wall clock, seconds since 1970.
    """

    machine: str
    soc: str
    kernel: str
    bsp: str
    npu: str
    runtime: str | None
    runtime_version: str
    runtime_sha256: str
    delegate: Library | None
    program: Program | None
    governor: str
    temperature_c: float | None
    temperatures_c: Mapping[str, float]
    boot_id: str
    python: str
    memory_kb: Mapping[str, int]
    disk: Disk | None
    cores: int
    load: float | None
    npu_device: bool
    npu_holders: tuple[Holder, ...]
    clock_s: float


def read_facts(probed: CommandResult, config: BoardConfig) -> Facts:
    """What the probe printed. Raises BoardError where it did not run or printed something else."""
    if probed.exit_code:
        said = (probed.stderr.strip().splitlines() or ["no message"])[-1]
        raise BoardError(
            f"board {config.name}: {config.python or 'python3'} cannot run the probe (exit {probed.exit_code}): "
            f"{said}: set `python` in boards.toml to one from 3.9 on"
        )
    who = f"board {config.name}: the output of the probe"
    raw = json_object(probed.stdout, who)
    require(raw, _FIELDS, who)
    nested = {
        "delegate": None if raw["delegate"] is None else Library(**raw["delegate"]),
        "program": None if raw["program"] is None else Program(**raw["program"]),
        "disk": None if raw["disk"] is None else Disk(**raw["disk"]),
        "npu_holders": tuple(Holder(**holder) for holder in raw["npu_holders"]),
    }
    return Facts(**{**raw, **nested})


def probe_arguments(config: BoardConfig, *roots: str) -> list[str]:
    """The probe's options; `roots` are the folders (sys, proc, ...) that a loopback's `root` replaces."""
    arguments = root_arguments(config, **{name: name for name in roots})
    arguments += ["--delegate", config.delegate] if config.delegate else []
    return arguments + (["--program", config.benchmark_model] if config.driver == "benchmark_model" else [])


def root_arguments(config: BoardConfig, **paths: str) -> list[str]:
    """Where our scripts find the board's instruments, if not in their usual places."""
    root = config.root
    return [word for name, path in paths.items() for word in (f"--{name}", f"{root}/{path}")] if root else []
