"""What verifying a packed bundle of the demo's size on the loopback board takes, from the command line to its end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deploy.compile.artifact import golden_pair
from deploy.formats.tflite.writer import write
from deploy.ship.archive import pack
from nas.data import open_data
from nas.data.batches import normalize
from tests.conftest import REPOSITORY
from tests.deploy.networks import small_segmenter_graph
from tests.deploy.ship.small_bundles import write_bundle

LIMIT_S = 5.0
SIZE, PAIRS = (112, 144), 8  # the demo's, and as many golden pairs as a bundle has
REPEATS = 3
COMMAND = "import sys; from deploy.cli import main; sys.exit(main())"


def seconds(folder: Path) -> Iterator[float]:
    graph, data = small_segmenter_graph(SIZE), open_data("scenes", "val", SIZE, count=PAIRS)
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "model.tflite").write_bytes(write(graph, {"subnet": "teacher"}))
    images: list[torch.Tensor] = [normalize([data[number].image]) for number in range(PAIRS)]
    pack(write_bundle(bundle, "demo", [golden_pair(graph, x) for x in images]), folder / "demo.bundle")
    for _ in range(REPEATS):
        start = time.perf_counter()
        argv = [sys.executable, "-c", COMMAND, "bundle", "verify", str(folder / "demo.bundle"), "--board", "loopback"]
        said = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        yield time.perf_counter() - start
        assert "verified on loopback" in said


@pytest.mark.benchmark(group="bundle")
def test_bundle_verify(benchmark, tmp_path):
    taken_s = min(seconds(tmp_path))
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(figure=taken_s, unit="s", limit=LIMIT_S, holds=taken_s <= LIMIT_S)
