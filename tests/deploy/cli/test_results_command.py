"""hilnas results and quarantine: tables, files, and one line for whatever is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from deploy.cli import main
from hil.measurement import Conditions, Failure, Measurement
from hil.store import Store

CONDITIONS = Conditions(
    board="bench", unit="bench-2", kind="loopback", machine="aarch64", soc="some", kernel="6.6.36", bsp="Yocto",
    npu="none", driver="python", runtime="tflite 2.16", delegate="none", kernels="xnnpack", threads=1,
    governor="performance", temperature_c=None, boot_id="b", python="3.12.1",
)  # fmt: skip
GOOD = Measurement(
    job_id="j0", model="good[bold].tflite", model_sha256="a" * 64, round=0, status="ok", load_us=10, first_us=20,
    latencies_us=(5000, 6000, 5500), conditions=CONDITIONS, parity=None, operators=("ADD",), delegated_nodes=0,
    failure=None, started_at="2026-01-01T00:00:00+00:00", flags=("unchecked",),
)  # fmt: skip
BAD = replace(
    GOOD, job_id="j1", model="bad.tflite", model_sha256="b" * 64, status="failed", latencies_us=(), flags=(),
    failure=Failure("model", "hung [in] its first inference"),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> str:
    where = tmp_path / "s.sqlite"
    with Store(where) as opened:
        opened.add(GOOD)
        opened.add(replace(GOOD, job_id="j2", round=1, latencies_us=(5500,) * 4, flags=()))
        opened.add(BAD)
        opened.quarantine(BAD.model_sha256, CONDITIONS.key(), "hung")
    return str(where)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What it prints; on stderr where it fails, and then in one line."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert err.count("\n") == (1 if code else 0) and (not code or err.startswith("hilnas: "))
    return err if code else out


def test_query_shows_a_table(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "results", "query", "--store", store)
    good, bad = (next(line for line in shown.splitlines() if name in line) for name in ("good", "bad"))
    assert [cell.strip() for cell in good.split("│")[1:-1]] == [
        "good[bold].tflite", "bench", CONDITIONS.key(), "2026-01-01", "5.500", "5.000 - 6.000", "5.700", "5.850", "0",
        "7", "unchecked 1/2",
    ]  # fmt: skip
    assert "failed" in bad and "bad.tflite failed on bench: hung [in] its first inference" in shown


def test_query_as_json(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    record: list[dict[str, Any]] = json.loads(said(capsys, "results", "query", "--store", store, "--json"))
    assert [r["status"] for r in record] == ["failed", "ok"]
    assert record[1]["median_us"] == 5500 and record[1]["ci95_us"] == [5000, 6000] and record[1]["n"] == 7
    assert record[1]["conditions"] == CONDITIONS.to_json()
    only = json.loads(said(capsys, "results", "query", "--store", store, "--json", "--status", "failed"))
    assert only == record[:1]


def test_files_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their paths; a file that changed, by its content."""
    where = str(tmp_path / "twins.sqlite")
    one = replace(GOOD, model="m.tflite", path="/w/a/m.tflite")
    two = replace(one, job_id="2", path="/w/b/m.tflite", model_sha256="b" * 64, started_at="2026-01-03T12:30:00+00:00")
    again = replace(two, job_id="3", model_sha256="c" * 64)
    with Store(where) as opened:
        opened.add(one)
        opened.add(two)
        opened.add(replace(two, job_id="4", round=1, started_at="2026-01-05T00:00:00+00:00"))
    shown = said(capsys, "results", "query", "--store", where)
    rows = {cells[1].strip(): cells[4].strip() for line in shown.splitlines() if len(cells := line.split("│")) > 4}
    assert rows == {"a/m.tflite": "2026-01-01", "b/m.tflite": "2026-01-03 to 2026-01-05"}
    with Store(where) as opened:
        opened.add(again)
    names = [line.split("│")[1].strip() for line in said(capsys, "results", "query", "--store", where).splitlines()
             if line.startswith("│")]  # fmt: skip
    assert [name for name in names if name] == ["a/m.tflite", "b/m.tflite@bbbbbbbb", "b/m.tflite@cccccccc"]
    record = json.loads(said(capsys, "results", "query", "--store", where, "--json", "--model", "/w/b/*"))
    assert [(r["path"], r["measured_from"]) for r in record] == [("/w/b/m.tflite", "2026-01-03T12:30:00+00:00")] * 2


def test_export_writes_a_file(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ("results", "export", "--store", store)
    out = tmp_path / "new" / "folder" / "out"
    for form in ("csv", "parquet", "pytest-benchmark"):
        told = said(capsys, *export, "--format", form, "--out", str(out))
        assert told == f"{out}: 7 samples of 1 models; 1 that failed left out\n"
        if form == "csv":
            assert pandas.read_csv(out)["latency_us"].tolist() == [5000, 6000, 5500, *[5500] * 4]
        elif form == "parquet":
            assert len(pandas.read_parquet(out)) == 7
        else:
            assert json.loads(out.read_text())["benchmarks"][0]["stats"]["median"] == 0.0055
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_is_wrong_is_one_line(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, missing = str(tmp_path / "out.csv"), str(tmp_path / "missing.sqlite")
    query, export = ("results", "query", "--store"), ("results", "export", "--store")
    for arguments in ((*query, missing), ("quarantine", "list", "--store", missing)):
        assert "no store there" in said(capsys, *arguments, code=2)
    assert not Path(missing).exists()
    assert "no such measurement" in said(capsys, *query, store, "--model", "nothing*", code=5)
    assert "no such measurement" in said(capsys, *query, store, "--since", "2026-02-01", code=5)
    assert "every model" in said(capsys, *export, store, "--model", "b*", "--format", "csv", "--out", out, code=5)
    assert "xlsx: no such format" in said(capsys, *export, store, "--format", "xlsx", "--out", out, code=2)
    assert "tomorrow: no ISO" in said(capsys, *query, store, "--since", "tomorrow", code=2)
    told = said(capsys, *query, "postgresql+psycopg://me:SECRET@127.0.0.1:1/d", code=2)
    assert "://me:***@127.0.0.1" in told and "SECRET" not in told
    assert not Path(out).exists()


def test_quarantine_is_listed_and_cleared(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    listing = ("quarantine", "list", "--store", store)
    assert said(capsys, *listing).startswith(f"bbbbbbbbbbbb bad.tflite, conditions {CONDITIONS.key()}, since 20")
    assert "no such model" in said(capsys, "quarantine", "clear", "--store", store, "aaaaaa", code=2)
    assert "6 or more digits" in said(capsys, "quarantine", "clear", "--store", store, "bbb", code=2)
    assert said(capsys, "quarantine", "clear", "--store", store, "bbbbbb") == "1 cleared\n"
    assert said(capsys, *listing) == "no model is in quarantine\n"
    assert said(capsys, "quarantine", "clear", "--store", store) == "0 cleared\n"
    (row,) = json.loads(said(capsys, *listing, "--cleared", "--json"))
    assert row["model"] == "bad.tflite" and row["reason"] == "hung" and row["cleared_at"] >= row["since"]
