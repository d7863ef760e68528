"""Reads the text of TFLite's `benchmark_model`, the program that NXP's BSPs carry, in its older and newer format.

Older builds print neither `INFO: ` nor percentiles. The program reports no single runs: one invocation gives one
sample, its median where it prints one, else its mean. It checks no output. Sources of the format: TensorFlow's
lite/tools/benchmark and core/util/stats_calculator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hil.answer import TimedRuns
from hil.errors import BoardError, ModelError

EXTERNAL = "EXTERNAL"  # how the program calls a delegate that it loads from a file
LAST_CHARACTERS = 300
SHORT_US = 100.0
LARGEST = 1e12  # microseconds (eleven days) or counts: a larger number is damage
LINE_CHARACTERS = 2000  # what a hostile line may cost to match
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
PREFIX = re.compile(r"^(?:INFO|WARNING|VERBOSE): ")
PAIR = re.compile(rf"\b(count|first|curr|min|max|avg|std|p5|median|p95)=({NUMBER})")
APPLIED = re.compile(
    r"[Aa]pplied (?P<name>\S+) delegate, and the model graph will be (?:completely|partially) executed "
    r"(?:by|w/) the delegate(?: w/ (?P<kernels>\d{1,9}) delegate kernels)?"
)
NOT_APPLIED = re.compile(r"Though (?P<name>\S+) delegate is explicitly applied, the model graph will not be")
FALLBACK = re.compile(r"Fallback unsupported op (\d{1,9}) to TfLite")
SESSION = re.compile(rf"Initialized session in ({NUMBER})ms")
TIMINGS = re.compile(
    rf"Inference timings in us: .*?Init: ({NUMBER}), First inference: ({NUMBER}), .*Inference \(avg\): ({NUMBER})"
)
PEAK = re.compile(rf"[Pp]eak memory footprint \(MB\)(?: via periodic monitoring: |: init={NUMBER} overall=)({NUMBER})")
SPOKEN = ("STARTING!", "Loaded model ", "Log parameter values", "Graph: [")
RUN_ORDER = re.compile(r"=+ Run Order =+$")
REGULAR_RUNS = "Profiling Info for Regular Benchmark Runs"


@dataclass(frozen=True)
class Runs:
    """One `count=` line: times of `count` runs, microseconds; percentiles are None in older builds."""

    count: int
    first_us: float
    curr_us: float
    min_us: float
    max_us: float
    avg_us: float
    std_us: float
    p5_us: float | None = None
    median_us: float | None = None
    p95_us: float | None = None

    @property
    def typical_us(self) -> float:
        return self.avg_us if self.median_us is None else self.median_us


@dataclass(frozen=True)
class Delegation:
    """How many delegate kernels the graph contains: 1 when the delegate took all of it, 0 when it took nothing."""

    delegate: str
    kernels: int


@dataclass(frozen=True)
class ProfiledLayer:
    """A row of a per-layer profile; the time of one inference in microseconds."""

    name: str
    kind: str
    time_us: float


@dataclass(frozen=True)
class Report:
    """What one invocation printed.

    Attributes:
        fallbacks: builtin operator codes that the delegate left to TFLite.
        errors: the lines that begin with ERROR, without that word.
        init_us: loading, delegate and allocation, microseconds.
        first_us: the first inference, microseconds.
        warmup: None where the program ran none; its first run is the first inference.
        peak_mb: the process's own peak, in MB as the program counts them; None where it was not asked to report it.
        layers: in the order of the run; empty without profiling.
    """

    model: str
    delegations: tuple[Delegation, ...]
    fallbacks: tuple[int, ...]
    errors: tuple[str, ...]
    init_us: float
    first_us: float
    warmup: Runs | None
    runs: Runs
    peak_mb: float | None
    layers: tuple[ProfiledLayer, ...]

    def kernels_of(self, delegate: str) -> int:
        return sum(found.kernels for found in self.delegations if found.delegate == delegate)


def read_report(text: str) -> Report:
    """Raises ModelError when the program gave up on the model, BoardError when this is no text of benchmark_model."""
    raw = [line[:LINE_CHARACTERS] for line in text.splitlines()]
    lines = [PREFIX.sub("", line.strip()) for line in raw]
    counts = [runs for runs in map(_runs, lines) if runs is not None]
    timings = _first(TIMINGS, lines)
    errors = tuple(line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
    # one count line alone may be the warm-up's, and the last line gives the mean once more
    well = bool(counts) and (timings is not None or len(counts) > 1)
    if not well or (timings is not None and not math.isclose(timings[2], counts[-1].avg_us, rel_tol=1e-3, abs_tol=1)):
        said = "; ".join(errors)[-LAST_CHARACTERS:] or last_lines(text)
        if any(line.startswith(SPOKEN) for line in lines):
            raise ModelError(f"benchmark_model reports no measured runs; its last output: {said}")
        raise BoardError(
            f"this is no text of benchmark_model; its last output: {said}: name the program in boards.toml "
            "(benchmark_model = PATH)"
        )
    session_ms = _first(SESSION, lines)
    warmup, runs = (counts[0] if len(counts) > 1 else None), counts[-1]
    started_us = session_ms[0] * 1000 if session_ms else 0.0
    init_us, first_us = timings[:2] if timings else (started_us, (warmup or runs).first_us)
    peak = _first(PEAK, lines)
    return Report(
        model=next((line.removeprefix("Loaded model ") for line in lines if line.startswith("Loaded model ")), ""),
        delegations=tuple(_delegations(lines)),
        fallbacks=tuple(int(found[1]) for line in lines if (found := FALLBACK.search(line))),
        errors=errors,
        init_us=init_us,
        first_us=first_us,
        warmup=warmup,
        runs=runs,
        peak_mb=peak[0] if peak else None,
        layers=tuple(_layers(raw)),
    )


def runs_of(texts: Sequence[str], *, external: bool) -> TimedRuns:
    """The runs of one job as the Python driver would report them, from the texts of its invocations: one sample each.

    `external`: only what the configured delegate took counts as delegated, and the least of all invocations.
    Of runs below 100 us the sample is the mean. Cold times are the first invocation's. Raises as `read_report` does.
    """
    reports = [read_report(text) for text in texts]
    # the program's percentiles are whole microseconds, its means are not
    short = min(report.runs.typical_us for report in reports) < SHORT_US
    mean = short or all(report.runs.median_us is None for report in reports)
    warmups = [report.warmup for report in reports if report.warmup is not None]
    all_kernels = [
        report.kernels_of(EXTERNAL) if external else sum(found.kernels for found in report.delegations)
        for report in reports
    ]
    codes = sorted({code for report in reports for code in report.fallbacks})
    said = [f"left operator {code} to TFLite" for code in codes]
    said += dict.fromkeys(error for report in reports for error in report.errors)
    return TimedRuns(
        load_us=round(reports[0].init_us),
        first_us=round(reports[0].first_us),
        warmup_us=round(sum(runs.count * runs.avg_us - runs.first_us for runs in warmups)),
        warmup_runs=sum(runs.count - 1 for runs in warmups),
        latencies_us=tuple(report.runs.avg_us if short else report.runs.typical_us for report in reports),
        calls=min(report.runs.count for report in reports) if mean else 1,
        averaged=True,
        delegated_nodes=min(all_kernels),
        delegate_said="; ".join(said)[:LAST_CHARACTERS],
    )


def last_lines(text: str) -> str:
    """The last lines that are not blank, on one line."""
    spoken = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return " | ".join(spoken[-3:])[-LAST_CHARACTERS:] or "nothing"


def _runs(line: str) -> Runs | None:
    """`count=9 first=... p95=...`; a single run, and equal ones, are `count=N curr=...`; `count=0` is none."""
    if not line.startswith("count="):
        return None
    numbers = {key: _number(text) for key, text in PAIR.findall(line)}
    found = {key: number for key, number in numbers.items() if number is not None}
    count, curr = found.pop("count", 0.0), found.get("curr")
    if None in numbers.values() or count < 1 or curr is None:
        return None
    same: Mapping[str, float] = {} if "avg" in found else dict.fromkeys(("first", "min", "max", "avg"), curr)
    wanted: dict[str, float] = {"std": 0.0, **same, **found}
    if not {"first", "min", "max", "avg"} <= set(wanted) or min(wanted.values()) < 0:
        return None
    return Runs(count=int(count), **{f"{key}_us": value for key, value in wanted.items()})


def _number(text: str) -> float | None:
    value = float(text)
    return value if abs(value) < LARGEST else None


def _first(pattern: re.Pattern[str], lines: Iterable[str]) -> tuple[float, ...] | None:
    """The numbers of the first line that matches, none of them negative or beyond reason."""
    for line in lines:
        found = pattern.search(line)
        if found:
            numbers = [_number(text) for text in found.groups()]
            known = tuple(number for number in numbers if number is not None and number >= 0)
            if len(known) == len(numbers):
                return known
    return None


def _delegations(lines: Iterable[str]) -> Iterator[Delegation]:
    for line in lines:
        if found := APPLIED.search(line):
            yield Delegation(found["name"], int(found["kernels"] or 1))
        elif found := NOT_APPLIED.search(line):
            yield Delegation(found["name"], 0)


def _layers(lines: Sequence[str]) -> Iterator[ProfiledLayer]:
    """The run-order sections of the regular runs, as CSV or as a table. Kinds hold commas, names may hold any."""
    begin = max((number for number, line in enumerate(lines) if REGULAR_RUNS in line), default=len(lines))
    row: re.Pattern[str] | None = None
    titled = False
    for line in lines[begin:]:
        if RUN_ORDER.search(line):
            titled = True
        elif titled:
            row, titled = _row_pattern(line), False
        elif row is not None:
            found = row.match(line)
            time_ms = _number(found["avg"]) if found else None
            if found is None or time_ms is None or time_ms < 0:
                row = None  # the section is over
            else:
                yield ProfiledLayer(found["name"].replace("\t", ","), found["kind"].strip(), time_ms * 1000)


def _row_pattern(header: str) -> re.Pattern[str] | None:
    """How a row reads under `node type, first, avg_ms, ...` or `[node type] [first] [avg ms] ...`."""
    columns = [name.replace(" ", "_") for name in re.split(r"\]\s*\[|,\s*", PREFIX.sub("", header).strip().strip("[]"))]
    if columns[0] != "node_type" or columns[-1].lower() != "name" or "avg_ms" not in columns:
        return None
    numbers = [f"(?P<avg>{NUMBER})" if name == "avg_ms" else NUMBER for name in columns[1:-1]]
    gap = r",\s*" if "," in header else r"\s+"
    fields = "".join(f"{number}%?{gap}" for number in numbers)
    return re.compile(rf"^\s*(?P<kind>.*?){gap}{fields}(?P<name>.*)$")
