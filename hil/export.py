"""Results as files for other tools: raw samples as CSV or Parquet, and pytest-benchmark's JSON.

A model that failed in any round has no latency, so none of its samples leaves.
"""

from __future__ import annotations

import io
import json
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hil.errors import Incomparable, UsageError
from hil.measurement import Conditions, Measurement
from hil.names import told_apart
from hil.results import Result

if TYPE_CHECKING:
    import pyarrow

BENCHMARK_VERSION = "5.3.1"  # the pytest-benchmark whose layout this is
PLAIN = ("job_id", "attempt", "model", "model_sha256", "path", "round", "started_at", "load_us", "first_us",
         "warmup_us", "warmup_runs", "cache", "delegated_nodes", "others_busy", "cores", "calls",
         "clock_ns", "class_map_us")  # fmt: skip


def export(found: Iterable[Result], form: str) -> bytes:
    """A file's content. Raises UsageError for an unknown form, Incomparable where no model has a latency."""
    if form not in FORMATS:
        raise UsageError(f"--format {form}: no such format; there are {', '.join(FORMATS)}")
    measured = [result for result in found if result.latency is not None]
    if not measured:
        raise Incomparable("every model that was asked for failed: there is no sample to export")
    return FORMATS[form](measured)


def samples(found: Sequence[Result]) -> pyarrow.Table:
    """Raw: one row per steady run, in the order in which they ran; latency_us and sample (its index) come last."""
    import numpy as np
    import pyarrow

    kept = [m for result in found for m in result.measurements]
    rows = pyarrow.Table.from_pylist([_columns(m) for m in kept], schema=pyarrow.schema(_schema()))
    counts = [len(m.latencies_us) for m in kept]
    repeated = rows.take(np.repeat(np.arange(len(kept)), counts))
    index = np.array([number for count in counts for number in range(count)], dtype=np.int64)
    latencies = np.array([value for m in kept for value in m.latencies_us], dtype=np.float64)
    return repeated.append_column("sample", pyarrow.array(index)).append_column("latency_us", pyarrow.array(latencies))


def _columns(m: Measurement) -> dict[str, Any]:
    return {
        **{name: getattr(m, name) for name in PLAIN},
        "flags": ";".join(m.flags),
        "conditions_key": m.conditions.key(),
        **asdict(m.conditions),
    }


def _schema() -> list[tuple[str, str]]:
    """Given, not guessed: where no board has a thermometer, its column is a float all the same."""
    arrow = {"str": "string", "int": "int64", "int | None": "int64", "float": "float64", "float | None": "float64"}
    declared = {field.name: field.type for field in fields(Measurement)}
    plain = [(name, arrow.get(str(declared[name]), "string")) for name in PLAIN]
    conditions = [(field.name, arrow[str(field.type)]) for field in fields(Conditions)]
    return [*plain, ("flags", "string"), ("conditions_key", "string"), *conditions]


def _csv(found: Sequence[Result]) -> bytes:
    from pyarrow import csv

    content = io.BytesIO()
    csv.write_csv(samples(found), content)
    return content.getvalue()


def _parquet(found: Sequence[Result]) -> bytes:
    from pyarrow import parquet

    content = io.BytesIO()
    parquet.write_table(samples(found), content)
    return content.getvalue()


def _pytest_benchmark(found: Sequence[Result]) -> bytes:
    """As `pytest --benchmark-json` writes it. A benchmark is compared with its namesakes, so the conditions are in
    its full name: other conditions, another benchmark.
    """
    names: dict[str, Iterator[str]] = {}
    for key in {result.conditions.key() for result in found}:
        names[key] = iter(told_apart([result.known for result in found if result.conditions.key() == key]))
    benchmarks = []
    for result in found:
        key = result.conditions.key()
        name = next(names[key])
        pool = [value for m in result.measurements for value in m.latencies_us]
        record = result.to_json()
        benchmarks.append(
            {
                "group": f"{result.conditions.board} {key}",
                "name": name,
                "fullname": f"{result.conditions.board}/{key}::{name}",
                "params": None,
                "param": None,
                "extra_info": {name: record[name] for name in ("model_sha256", "rounds", "flags", "conditions")},
                "options": {"warmup": any(m.warmup_runs for m in result.measurements)},
                "stats": {**benchmark_stats(pool), "iterations": min(m.calls for m in result.measurements)},
            }
        )
    boards = sorted({result.conditions.board for result in found})
    machines = sorted({result.conditions.machine for result in found})
    record = {
        "machine_info": {"node": ", ".join(boards), "machine": ", ".join(machines)},
        "commit_info": {},
        "benchmarks": benchmarks,
        "datetime": datetime.now(UTC).isoformat(),
        "version": BENCHMARK_VERSION,
    }
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def benchmark_stats(latencies_us: Sequence[float]) -> dict[str, Any]:
    """pytest-benchmark's `stats` of one benchmark, in seconds, computed as it does (quartiles by method 2 or 3)."""
    data = [value / 1e6 for value in latencies_us]
    ordered = sorted(data)
    q1, q3 = _lower_quartile(ordered), _lower_quartile(ordered[::-1])
    mean, deviation = statistics.mean(data), statistics.stdev(data) if len(data) > 1 else 0
    fences = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    far, outside = ((mean - deviation, mean + deviation), fences)
    beyond = [sum(value < low or value > high for value in data) for low, high in (far, outside)]
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": statistics.median(data),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond[1],
        "stddev_outliers": beyond[0],
        "outliers": f"{beyond[0]};{beyond[1]}",
        "ld15iqr": ordered[bisect_left(ordered, fences[0])],
        "hd15iqr": ordered[bisect_right(ordered, fences[1]) - 1],
        "ops": len(data) / sum(data) if sum(data) else 0,
        "total": sum(data),
        "data": data,
        "iterations": 1,
    }


def _lower_quartile(ordered: Sequence[float]) -> float:
    """The upper one, where the largest comes first."""
    n = len(ordered)
    if n == 1:
        return ordered[0]
    if n % 2 == 0:
        return statistics.median(ordered[: n // 2])
    k = n // 4
    return 0.25 * ordered[k - 1] + 0.75 * ordered[k] if n % 4 == 1 else 0.75 * ordered[k] + 0.25 * ordered[k + 1]


FORMATS: Mapping[str, Callable[[Sequence[Result]], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "pytest-benchmark": _pytest_benchmark,
}
