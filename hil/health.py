"""Is a board ready to measure on? One finding per check, each with what to do; nothing on the board is changed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hil.boards.board import Board
from hil.boards.config import BoardConfig
from hil.facts import PROBE_TIMEOUT_S, Disk, Facts, Library, probe_arguments, read_facts
from hil.reservation import occupancy
from hil.scripts import run_script
from hil.session import DEFAULT_WORKDIR

State = Literal["ok", "advice", "failed"]
PINGS = 3
LEAST_FREE_MB = 64
LEAST_CMA_MB = 64  # what a small network's buffers take on the NPU; a DeepLabV3 at 513x513 needs more
HOT_C = 85.0
BUSY_LOAD = 0.1  # of a core, over the last minute
CLOCK_OFF_S = 2.0


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        said: what was found, in one line.
        todo: what to do about it; empty where nothing is wrong.
    """

    check: str
    state: State
    said: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.said}{': ' + self.todo if self.todo else ''}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(board: Board) -> Iterator[Finding]:
    """Reaches the board, reads what it is, and evaluates that. Raises BoardError where nothing can be read."""
    connected_at = time.monotonic()
    board.run(["true"], 30)
    connect_ms = (time.monotonic() - connected_at) * 1000
    pings_ms = []
    for _ in range(PINGS):
        begin = time.monotonic()
        board.run(["true"], 30)
        pings_ms.append((time.monotonic() - begin) * 1000)
    took_ms = statistics.median(pings_ms)
    yield Finding("reach", "ok", f"connected in {connect_ms:.0f} ms, a command takes {took_ms:.0f} ms")
    others = occupancy(board).others()
    todo = "wait, or ask them" if others else ""
    yield Finding("neighbours", "failed" if others else "ok", others or "reserved and used by nobody else", todo)
    before_s = time.time()
    found = facts(board)
    yield clock(found.clock_s, before_s, time.time())
    yield from evaluate_facts(board.config, found)


def facts(board: Board) -> Facts:
    """What board_scripts/probe.py finds on the board now. Raises BoardError."""
    config = board.config
    arguments = ["--workdir", config.workdir or DEFAULT_WORKDIR, *probe_arguments(config, "sys", "proc", "etc", "dev")]
    return read_facts(run_script(board, "probe.py", *arguments, timeout_s=PROBE_TIMEOUT_S), config)


def clock(board_s: float, before_s: float, after_s: float) -> Finding:
    """The board's clock, read between two readings of ours."""
    off_s = board_s - min(max(board_s, before_s), after_s)
    if abs(off_s) <= CLOCK_OFF_S:
        return Finding("clock", "ok", f"{abs(off_s):.1f} s from ours")
    said = f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} ours"
    return Finding("clock", "advice", said, "set it (NTP, `date -s`); times are taken here, only its logs differ")


def evaluate_facts(config: BoardConfig, found: Facts) -> Iterator[Finding]:
    """What the facts mean for measuring; pure."""
    names = ("soc", "machine", "kernel", "bsp", "npu")
    said = ", ".join(f"{name} {getattr(found, name)}" for name in names)
    yield Finding("identity", "ok", f"{said}, Python {found.python}, boot {found.boot_id[:8]}")
    yield _runtime(config, found)
    if found.delegate is not None:
        yield _delegate(config, found.delegate)
        yield from _npu(config, found)
    yield _governor(config, found.governor)
    yield _heat(config, found)
    yield _disk(config, found.disk)
    yield _cma(config, found.memory_kb)
    yield _load(found)


def _runtime(config: BoardConfig, found: Facts) -> Finding:
    if config.driver == "benchmark_model":
        program, todo = found.program, "install the BSP's tensorflow-lite examples, or fix `benchmark_model`"
        if program is None:
            return Finding("runtime", "failed", f"no program {config.benchmark_model}", todo)
        return Finding("runtime", "ok", f"{program.path} @ {program.sha256[:12]}")
    if found.runtime is not None:
        said = f"{found.runtime} {found.runtime_version} @ {found.runtime_sha256[:12]}"
        return Finding("runtime", "ok", said)
    todo = 'install ai-edge-litert or tflite-runtime there, or set driver = "benchmark_model"'
    return Finding("runtime", "failed", f"no TFLite runtime ({found.runtime_version})", todo)


def _delegate(config: BoardConfig, library: Library) -> Finding:
    if library.sha256 is None:
        said = f"no {library.path} ({library.reason})"
        return Finding("delegate", "failed", said, "fix `delegate` in boards.toml, or install the BSP's package")
    if not library.sha256.startswith(config.delegate_sha256):
        said = f"{library.path} @ {library.sha256[:12]}, not {config.delegate_sha256[:12]}"
        return Finding("delegate", "failed", said, "install the right one, or fix `delegate_sha256`")
    return Finding("delegate", "ok", f"{library.path} @ {library.sha256[:12]}")


def _npu(config: BoardConfig, found: Facts) -> Iterator[Finding]:
    """Of VeriSilicon's NPU: its device, and who has it open."""
    if "vx" not in config.delegate:
        return
    if not found.npu_device:
        said = f"no /dev/galcore (driver {found.npu})"
        yield Finding("npu", "failed", said, "`modprobe galcore`; its version has to be the user libraries'")
        return
    holders = ", ".join(f"{holder.command[:60]} (process {holder.pid})" for holder in found.npu_holders)
    if holders:
        yield Finding("npu", "advice", f"{found.npu}; open in {holders}", "end what is not ours before measuring")
    elif "ml_core" not in found.npu and "mc" not in found.npu.split():
        todo = "mount debugfs (`mount -t debugfs none /sys/kernel/debug`), so that it is recorded"
        yield Finding("npu", "advice", f"{found.npu}; the clock of its ml_core is not known", todo)
    else:
        yield Finding("npu", "ok", f"{found.npu}; opened by nobody")


def _governor(config: BoardConfig, governor: str) -> Finding:
    if config.governor:
        return Finding("governor", "ok", f"{governor} now, pinned to {config.governor} while we measure")
    if governor in ("performance", "unknown"):
        return Finding("governor", "ok", "none that could be read" if governor == "unknown" else governor)
    return Finding("governor", "advice", governor, 'set governor = "performance" in boards.toml: it is given back')


def _heat(config: BoardConfig, found: Facts) -> Finding:
    zones = ", ".join(f"{zone} {value:.0f}" for zone, value in found.temperatures_c.items())
    hottest = found.temperature_c
    if hottest is None:
        return Finding("heat", "ok", "no zone that could be read")
    if config.max_temperature_c and hottest >= config.max_temperature_c:
        todo = "let it cool down, or give it a fan"
        return Finding("heat", "failed", f"{zones} C, measured is below {config.max_temperature_c:g} C only", todo)
    if hottest >= HOT_C:
        return Finding("heat", "advice", f"{zones} C", "it may throttle: let it cool down, or set max_temperature_c")
    return Finding("heat", "ok", f"{zones} C")


def _disk(config: BoardConfig, disk: Disk | None) -> Finding:
    if disk is None:
        return Finding("disk", "advice", "no disk that could be read", "see `workdir` in boards.toml")
    free_mb, where = disk.free_bytes >> 20, config.workdir or DEFAULT_WORKDIR
    said = f"{free_mb} MB free in {where}"
    if free_mb < LEAST_FREE_MB:
        return Finding("disk", "failed", said, "free space there, or name another workdir in boards.toml")
    if free_mb < config.quota_mb:
        return Finding("disk", "advice", said, f"quota_mb is {config.quota_mb}: lower it in boards.toml")
    return Finding("disk", "ok", said)


def _cma(config: BoardConfig, memory_kb: Mapping[str, int]) -> Finding:
    if "CmaFree" not in memory_kb:
        return Finding("cma", "ok", "the kernel reserves none")
    free_mb, total_mb = memory_kb["CmaFree"] >> 10, memory_kb.get("CmaTotal", 0) >> 10
    said = f"{free_mb} of {total_mb} MB free"
    if config.delegate and free_mb < LEAST_CMA_MB:
        return Finding(
            "cma", "failed", said, "end who holds it, or reboot; `cma=` on the kernel's command line sets it"
        )
    return Finding("cma", "ok", said)


def _load(found: Facts) -> Finding:
    if found.load is None:
        return Finding("load", "ok", "not known")
    said = f"{found.load:.2f} on {found.cores} cores"
    if found.load > BUSY_LOAD * found.cores:
        return Finding("load", "advice", said, "something else is at work: see `top` there")
    return Finding("load", "ok", said)
