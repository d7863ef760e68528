"""Whole bundles of a model of one operator, y = x + constant, and of any model, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.formats.digest import file_digest
from deploy.run.records import BudgetVerdict, LatencyRecord
from deploy.ship.manifest import FORMAT, BundleMeasurement, GoldenPair, ListedFile, Manifest, Preprocessing
from hil.measurement import Conditions
from tests.deploy.run_records import summary
from tests.hil import tiny_model

SLOWEST_US = 1e6  # of the recorded interval, unless a test is about it


def small_bundle(folder: Path, constant: int = 3, *, wrong: int = 0, pairs: int = 1, **facts: Any) -> Path:
    """`wrong` elements of the last of `pairs` golden outputs are off by one; `facts`: as of `write_bundle`."""
    golden = []
    for number in range(pairs):
        given = np.random.default_rng(number).integers(-100, 100, tiny_model.SHAPE, dtype=np.int8)
        wanted = (given + constant).astype(np.int8)
        if number == pairs - 1:
            wanted.reshape(-1)[:wrong] += 1
        golden.append((given.tobytes(), wanted.tobytes()))
    folder.mkdir(parents=True)
    tiny_model.int8_add(folder / "model.tflite", constant=constant)
    return write_bundle(folder, f"add-{constant}", golden, **facts)


def write_bundle(
    folder: Path,
    name: str,
    golden: Sequence[tuple[bytes, bytes]],
    *,
    recorded_us: float = SLOWEST_US,
    conditions: Conditions | None = None,
    tolerance: float | None = 0.25,
    budgets: tuple[BudgetVerdict, ...] = (),
) -> Path:
    """Around the model that is in `folder`; `golden`: inputs and outputs."""
    (folder / "golden").mkdir()
    pairs = []
    for number, content in enumerate(golden):
        pair = GoldenPair(f"golden/input{number}.bin", f"golden/output{number}.bin", 0.0, 0)
        for path, data in zip((pair.input, pair.output), content, strict=True):
            (folder / path).write_bytes(data)
        pairs.append(pair)
    (folder / "labels.txt").write_text("a\nb\n")
    Preprocessing("int8, NHWC", "int8 = uint8 - 128", 1 / 128, 0, "bilinear", (8, 8)).write(folder / Preprocessing.FILE)
    latency = LatencyRecord(recorded_us, recorded_us, 30, (recorded_us, recorded_us))
    BundleMeasurement(latency, conditions or summary().conditions).write(folder / BundleMeasurement.FILE)
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    Manifest(
        FORMAT,
        name,
        "model.tflite",
        "labels.txt",
        Preprocessing.FILE,
        BundleMeasurement.FILE,
        {},
        tuple(pairs),
        {path: ListedFile(file_digest(source), source.stat().st_size) for path, source in files.items()},
        latency_tolerance=tolerance,
        budgets=budgets,
    ).write(folder / Manifest.FILE)
    return folder
