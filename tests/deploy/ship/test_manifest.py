"""A bundle's records: strict on the host, and the names in manifest.json those that the board's verifier reads."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.run.records import LatencyRecord
from deploy.ship.manifest import (
    FORMAT,
    BundleMeasurement,
    GoldenPair,
    LeftToCpu,
    ListedFile,
    Manifest,
    Preprocessing,
    VerifierLatency,
    read_verifier,
)
from hil.errors import ModelError, UsageError
from hil.scripts import script
from tests.deploy.run_records import summary

MANIFEST = Manifest(
    FORMAT,
    "run-fast",
    "model.tflite",
    "labels.txt",
    "preprocessing.json",
    "measurement.json",
    {"subnet": "b1_k3e1_w8"},
    (GoldenPair("golden/input.bin", "golden/output.bin", 0.02, None),),
    {"labels.txt": ListedFile("0" * 64, 4)},
)
PREPROCESSING = Preprocessing("int8, NHWC, batch 1, RGB", "int8 = uint8 - 128", 1 / 128, 0, "bilinear", (112, 144))
LATENCY = LatencyRecord(1500.0, 1600.0, 30, (1450.0, 1550.0), "2026-01-31T20:00:00+00:00")
MEASUREMENT = BundleMeasurement(LATENCY, summary().conditions)


@pytest.mark.parametrize(
    "record",
    [MANIFEST, *(replace(MANIFEST, class_map=LeftToCpu(s)) for s in ((), ((2, 3),))), PREPROCESSING, MEASUREMENT],
)
def test_records_survive_their_files(tmp_path: Path, record: Manifest | Preprocessing | BundleMeasurement) -> None:
    path = tmp_path / record.FILE
    record.write(path)
    assert type(record).read(path) == record
    assert json.loads(path.read_text())["schema_version"] == 1


def test_the_names_that_the_board_reads_stay() -> None:
    raw = MANIFEST.to_json()
    assert list(raw) == [
        "schema_version", "format", "name", "model", "labels", "preprocessing", "measurement", "facts", "golden",
        "files",
    ]  # fmt: skip
    assert raw["golden"] == [
        {"input": "golden/input.bin", "output": "golden/output.bin", "max_mismatch": 0.02, "max_abs_diff": None}
    ]
    assert raw["files"] == {"labels.txt": {"sha256": "0" * 64, "bytes": 4}} and raw["format"] == "hilnas-bundle/2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": "x"}, "unknown key 'modle'"),
        ({"golden": [{"input": "a"}]}, "golden.0.output"),
        ({"files": {"a": {"sha256": "0", "bytes": "many"}}}, "files.a.bytes"),
        ({"schema_version": 2}, "schema version 2"),
        ({"model": "../model.tflite"}, "'../model.tflite' is no name of a file inside a bundle"),
        ({"measurement": ""}, "'' is no name of a file inside a bundle"),
        ({"files": {"/etc/passwd": {"sha256": "0", "bytes": 1}}}, "'/etc/passwd' is no name"),
        ({"name": "../../up"}, "'../../up' cannot be a file's"),
        ({"format": "hilnas-bundle/3"}, "format 'hilnas-bundle/3': this hilnas reads hilnas-bundle/1 and"),
    ],
)
def test_a_manifest_is_read_strictly(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST.to_json() | change))
    with pytest.raises(UsageError) as caught:
        Manifest.read(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_the_boards_verifier_accepts_the_manifest(tmp_path: Path) -> None:
    """As far as it goes without a runtime: it is read, its paths and files hold."""
    (tmp_path / "golden").mkdir()
    for name in ("golden/input.bin", "golden/output.bin", "model.tflite"):
        (tmp_path / name).write_bytes(b"")
    empty = ListedFile("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)
    files = dict.fromkeys(("golden/input.bin", "golden/output.bin", "model.tflite"), empty)
    replace(MANIFEST, files=files).write(tmp_path / "manifest.json")
    argv = [sys.executable, "-I", "-", str(tmp_path)]
    ended = subprocess.run(argv, input=script("verify_bundle.py"), capture_output=True, check=False)
    checks, verdict = read_verifier(ended.stdout.decode(), "bundle")
    assert {c.check: c.ok for c in checks} == {
        "manifest": True, "paths": True, "file": True, "unlisted": True, "model": False,
    }  # fmt: skip
    assert verdict is not None and not verdict.verified and verdict.name == "run-fast"


def test_the_verifiers_output() -> None:
    lines = (
        '{"check": "paths", "ok": true, "detail": "3 paths stay inside"}',
        "INFO: a library's line",
        '{"verified": true, "latency_us": {"median": 1.5, "p90": 2.0, "n": 30}, "name": "run-fast"}',
    )
    checks, verdict = read_verifier("\n".join(lines), "b on imx8mp")
    assert [c.check for c in checks] == ["paths"] and verdict is not None
    assert verdict.verified and verdict.latency_us == VerifierLatency(1.5, 2.0, 30)
    assert read_verifier("", "b") == ([], None)
    for damaged in ('{"check": "pa', '{"check": "paths"}', '{"verified": "perhaps so"}'):
        with pytest.raises(ModelError, match="b on imx8mp: the verifier's output is not readable"):
            read_verifier(damaged, "b on imx8mp")
