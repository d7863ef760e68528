"""What benchmark_model prints, made from a report; and a program that prints what a test gives it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from hil.benchmark_model import Delegation, ProfiledLayer, Report, Runs

PROGRAM = """#!{python}
import json, os, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "calls"), "a") as calls:
    vendor = {{name: os.environ[name] for name in ("CNN_PERF", "VIV_VX_DEBUG_LEVEL") if name in os.environ}}
    calls.write(json.dumps([sys.argv[1:], vendor, os.getpid()]) + "\\n")
plan = json.load(open(os.path.join(here, "plan")))
for line in plan["text"].splitlines():
    if line == "HANG":
        time.sleep(1000)
    if line == "FLOOD":
        for _ in range(40):
            print("x" * 100_000, flush=True)
    print(line, file=sys.stderr if line.startswith("ERROR") else sys.stdout, flush=True)
if plan.get("signal"):
    os.kill(os.getpid(), plan["signal"])
sys.exit(plan.get("status", 0))
"""


class Program:
    """A stand-in for benchmark_model in a folder: prints what it is given, and notes how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "benchmark_model"
        self.path.write_text(PROGRAM.format(python=sys.executable))
        self.path.chmod(0o755)

    def says(self, text: str, **plan: Any) -> None:
        (self.folder / "plan").write_text(json.dumps({"text": text, **plan}))
        (self.folder / "calls").unlink(missing_ok=True)

    def calls(self) -> list[tuple[list[str], dict[str, str], int]]:
        """(arguments, the vendor's environment variables, process) of each call."""
        return [tuple(json.loads(line)) for line in (self.folder / "calls").read_text().splitlines()]

    def wait_for_a_call(self, timeout_s: float = 15) -> int:
        """The process of the first call."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (self.folder / "calls").exists() and (calls := self.calls()):
                return calls[0][2]
            time.sleep(0.02)
        raise AssertionError("the program was not called")


def runs(avg_us: float, *, count: int = 6, median_us: float | None = None) -> Runs:
    spread = (avg_us - 5, median_us, avg_us + 5) if median_us is not None else (None, None, None)
    return Runs(count, avg_us + 3, avg_us, avg_us - 9, avg_us + 9, avg_us, 2.0, *spread)


def report(avg_us: float = 8000.0, median_us: float | None = None, *delegations: Delegation, **other: Any) -> Report:
    fields: dict[str, Any] = {
        "model": "/x/m.tflite", "delegations": delegations, "fallbacks": (), "errors": (), "init_us": 18738.0,
        "first_us": 140706.0, "warmup": runs(20000.0), "peak_mb": None, "layers": (),
    }  # fmt: skip
    return Report(**{**fields, "runs": runs(avg_us, median_us=median_us), **other})


def render(report: Report, *, csv: bool = True) -> str:
    """Newer builds where the runs have percentiles, else older ones."""
    newer = report.runs.median_us is not None
    info = "INFO: " if newer else ""
    lines = [f"{info}STARTING!", f"{info}Log parameter values verbosely: [0]", f"{info}Graph: [{report.model}]"]
    lines += [f"{info}Loaded model {report.model}"] if report.model else []
    lines += [f"ERROR: {error}" for error in report.errors]
    lines += [f"{info}Fallback unsupported op {code} to TfLite" for code in report.fallbacks]
    lines += [f"{info}{_delegation(found)}" for found in report.delegations]
    lines += [f"{info}The input model file size (MB): 5.42276"]
    lines += [f"{info}Initialized session in {report.init_us / 1000:g}ms."]
    for part in (report.warmup, report.runs):
        if part is not None:
            lines += [f"{info}Running benchmark for at least {part.count} iterations and at least 0 seconds"]
            lines += [f"{info}{_count(part)}", ""]
    warm = report.warmup or report.runs
    lines += [
        f"{info}Inference timings in us: Init: {report.init_us:g}, First inference: {report.first_us:g}, "
        f"Warmup (avg): {warm.avg_us:g}, Inference (avg): {report.runs.avg_us:g}"
    ]
    if report.peak_mb is not None:
        lines += [f"{info}Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.5"]
        lines += [
            f"{info}Overall peak memory footprint (MB) via periodic monitoring: {report.peak_mb:g}"
            if newer
            else f"Peak memory footprint (MB): init=6.44141 overall={report.peak_mb:g}"
        ]
    return "\n".join(lines + _profile(report.layers, info, csv)) + "\n"


def _delegation(found: Delegation) -> str:
    if not found.kernels:
        return f"Though {found.delegate} delegate is explicitly applied, the model graph will not be executed by it."
    part = "completely" if found.kernels == 1 else "partially"
    kernels = "" if found.kernels == 1 else f" w/ {found.kernels} delegate kernels"
    return (
        f"Explicitly applied {found.delegate} delegate, and the model graph will be {part} executed by the "
        f"delegate{kernels}."
    )


def _count(part: Runs) -> str:
    percentiles = "" if part.median_us is None else f" p5={part.p5_us:g} median={part.median_us:g} p95={part.p95_us:g}"
    if part.min_us == part.max_us:
        return f"count={part.count} curr={part.curr_us:g}" + ("(all same)" if part.count > 1 else "") + percentiles
    return (
        f"count={part.count} first={part.first_us:g} curr={part.curr_us:g} min={part.min_us:g} max={part.max_us:g} "
        f"avg={part.avg_us:g} std={part.std_us:g}{percentiles}"
    )


def _profile(layers: tuple[ProfiledLayer, ...], info: str, csv: bool) -> list[str]:
    if not layers:
        return []
    if csv:
        header = "node type, first, avg_ms, %, cdf%, mem KB, times called, name"
        rows = [
            f"{each.kind}, 0.1, {each.time_us / 1000:g}, 2.5%, 50%, 0, 1, " + each.name.replace(",", "\t")
            for each in layers
        ]
    else:
        header = "\t  [node type]\t  [first]\t [avg ms]\t [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]"
        rows = [
            f"\t  {each.kind}\t 0.100\t {each.time_us / 1000:g}\t 2.5%\t50%\t 0.000\t 1\t{each.name}" for each in layers
        ]
    title = "============================== {} =============================="
    return [
        f"{info}Profiling Info for Benchmark Initialization:", title.format("Run Order"), header,
        "AllocateTensors, 0.1, 0.1, 100%, 100%, 0, 1, AllocateTensors/0", "",
        "Timings (microseconds): count=1 curr=1356", "Memory (bytes): count=0", "1 nodes observed", "",
        f"{info}Operator-wise Profiling Info for Regular Benchmark Runs:", title.format("Run Order"), header,
        *rows, "",
        title.format("Top by Computation Time"), header, *rows[:1], "",
        f"Number of nodes executed: {len(rows)}", title.format("Summary by node type"),
        "node type, count, avg_ms, avg %, cdf %, mem KB, times called", "CONV_2D, 1, 0.1, 100%, 100%, 0, 1", "",
        f"Timings (microseconds): count={len(rows)} first=9 curr=9 min=9 max=9 avg=9 std=0",
        "Memory (bytes): count=0", f"{len(rows)} nodes observed",
    ]  # fmt: skip
