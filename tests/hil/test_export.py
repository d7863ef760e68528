from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from hil.errors import Incomparable, UsageError
from hil.export import benchmark_stats, export, samples
from hil.measurement import Measurement
from hil.results import Wanted, results
from tests.hil.measured_stores import stores
from tests.hil.stored_measurements import CONDITIONS, FAILED, ONE, OTHER

COLD = replace(CONDITIONS, temperature_c=None)


@given(stores())
@settings(max_examples=50, deadline=None)
def test_the_columns_taken_at_once_are_the_rows_written_one_by_one(measured: list[Measurement]) -> None:
    well = [result for result in results(measured, Wanted()) if result.latency]
    rows = []
    for result in well:
        for m in result.measurements:
            for index, latency_us in enumerate(m.latencies_us):
                row = {**asdict(m), **asdict(m.conditions), "flags": ";".join(m.flags)}
                row.update(conditions_key=m.conditions.key(), sample=index, latency_us=latency_us)
                rows.append(row)
    table = samples(well)
    assert table.to_pylist() == [{name: row[name] for name in table.column_names} for row in rows]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_pandas_reads_the_samples_back(form: str) -> None:
    odd = replace(ONE, model='a "quoted", name\nüber', conditions=COLD, flags=())
    second = replace(ONE, job_id="j1", round=1, latencies_us=(7, 8), conditions=COLD)
    failed = replace(FAILED, model_sha256="b" * 64, model="bad", conditions=COLD)
    content = io.BytesIO(export(results([odd, second, failed], Wanted()), form))
    frame = pandas.read_csv(content, keep_default_na=False) if form == "csv" else pandas.read_parquet(content)
    assert frame["latency_us"].tolist() == [5, 6, 5, 7, 8] and frame["sample"].tolist() == [0, 1, 2, 0, 1]
    assert frame["model"].tolist() == [odd.model] * 3 + ["m"] * 2
    assert frame["flags"].tolist() == [""] * 3 + ["drift;neighbours"] * 2
    assert set(frame["delegate"]) == {"none"} and set(frame["conditions_key"]) == {COLD.key()}
    if form == "parquet":
        assert frame["temperature_c"].dtype == float and frame["temperature_c"].isna().all()


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_the_stats_are_pytest_benchmarks_own(latencies_us: list[int]) -> None:
    reference = Stats()
    for value in latencies_us:
        reference.update(value / 1e6)
    found = benchmark_stats(latencies_us)
    assert {name: found[name] for name in Stats.fields} == reference.as_dict()
    assert found["data"] == reference.data


def test_pytest_benchmark_compares_two_exports(tmp_path: Path) -> None:
    slow = replace(ONE, latencies_us=(5000, 6000, 5500))
    twin = replace(slow, job_id="t", model_sha256="b" * 64)
    base, head = tmp_path / "base.json", tmp_path / "head.json"
    base.write_bytes(
        export(results([slow, twin, replace(slow, job_id="n", conditions=OTHER)], Wanted()), "pytest-benchmark")
    )
    head.write_bytes(export(results([replace(slow, latencies_us=(2500,) * 3)], Wanted()), "pytest-benchmark"))
    names = [benchmark["fullname"] for benchmark in json.loads(base.read_text())["benchmarks"]]
    assert names == [
        f"bench/{CONDITIONS.key()}::m@aaaaaaaa", f"bench/{CONDITIONS.key()}::m@bbbbbbbb", f"npu/{OTHER.key()}::m",
    ]  # fmt: skip
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", str(base), str(head), "--columns=median,rounds"]
    done = subprocess.run(compare, capture_output=True, text=True, cwd=tmp_path, check=True)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("m")]
    assert len(rows) == 4 and "Failed to load" not in done.stdout + done.stderr
    assert sorted(row[2] for row in rows) == ["2.5000", "5.5000", "5.5000", "5.5000"]  # ms
    assert f"'npu {OTHER.key()}'" in done.stdout


def test_nothing_to_export() -> None:
    with pytest.raises(Incomparable, match="failed"):
        export(results([FAILED], Wanted()), "csv")
    with pytest.raises(UsageError, match="there are csv, parquet, pytest-benchmark"):
        export(results([ONE], Wanted()), "xlsx")
