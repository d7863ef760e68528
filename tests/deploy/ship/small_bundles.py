"""Whole bundles of a model of one operator, y = x + constant, made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deploy.formats.digest import file_digest
from deploy.run.records import LatencyRecord
from deploy.ship.manifest import FORMAT, BundleMeasurement, GoldenPair, ListedFile, Manifest, Preprocessing
from hil.measurement import Conditions
from tests.deploy.run_records import summary
from tests.hil import tiny_model

SLOWEST_US = 1e6  # of the recorded interval, unless a test is about it


def small_bundle(
    folder: Path,
    constant: int = 3,
    *,
    wrong: int = 0,
    pairs: int = 1,
    recorded_us: float = SLOWEST_US,
    conditions: Conditions | None = None,
    tolerance: float | None = 0.25,
) -> Path:
    """`wrong` elements of the last of `pairs` golden outputs are off by one."""
    (folder / "golden").mkdir(parents=True)
    tiny_model.int8_add(folder / "model.tflite", constant=constant)
    golden = []
    for number in range(pairs):
        given = np.random.default_rng(number).integers(-100, 100, tiny_model.SHAPE, dtype=np.int8)
        wanted = (given + constant).astype(np.int8)
        if number == pairs - 1:
            wanted.reshape(-1)[:wrong] += 1
        pair = GoldenPair(f"golden/input{number}.bin", f"golden/output{number}.bin", 0.0, 0)
        (folder / pair.input).write_bytes(given.tobytes())
        (folder / pair.output).write_bytes(wanted.tobytes())
        golden.append(pair)
    (folder / "labels.txt").write_text("a\nb\n")
    Preprocessing("int8, NHWC", "int8 = uint8 - 128", 1 / 128, 0, "bilinear", (8, 8)).write(folder / Preprocessing.FILE)
    latency = LatencyRecord(recorded_us, recorded_us, 30, (recorded_us, recorded_us))
    BundleMeasurement(latency, conditions or summary().conditions).write(folder / BundleMeasurement.FILE)
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    Manifest(
        FORMAT,
        f"add-{constant}",
        "model.tflite",
        "labels.txt",
        Preprocessing.FILE,
        BundleMeasurement.FILE,
        {},
        tuple(golden),
        {name: ListedFile(file_digest(path), path.stat().st_size) for name, path in files.items()},
        latency_tolerance=tolerance,
    ).write(folder / Manifest.FILE)
    return folder
