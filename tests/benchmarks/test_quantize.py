"""quantize: a MobileNetV2 with 100 images, against TFLiteConverter and onnxruntime's quantizer, on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.quantizer_speed import IMAGES, SIZE, Cost, mobilenet_v2

LIMIT = 5.0  # times as fast as the converter


def measured(network: Path, quantizer: str) -> Cost:
    """In a process of its own, on one core."""
    core = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(core), sys.executable, "-m", "tests.benchmarks.quantizer_speed"]
    one_thread = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [*command, str(network), quantizer], env=os.environ | one_thread, capture_output=True, check=True, text=True
    )
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.benchmark(group="quantize")
def test_quantize(benchmark, tmp_path):
    pytest.importorskip("tensorflow", reason="needs the extra: pip install 'hilnas[tensorflow]'")
    pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'hilnas[onnx]'")
    torch.manual_seed(0)
    network = tmp_path / "network.onnx"
    example = torch.randn(1, 3, SIZE, SIZE)
    torch.onnx.export(mobilenet_v2(), (example,), network, input_names=["x"], dynamo=False)
    ours = benchmark.pedantic(lambda: measured(network, "ours"), rounds=1)
    converter, onnxruntime = measured(network, "tensorflow"), measured(network, "onnxruntime")
    ratio = converter.seconds / ours.seconds
    benchmark.extra_info.update(
        figure=ratio,
        unit=f"times as fast as TFLiteConverter on {IMAGES} images, processor time",
        limit=LIMIT,
        holds=ratio >= LIMIT and ours.peak_mb < converter.peak_mb,
        ratio=ratio,
        times_as_fast_as_onnxruntime=onnxruntime.seconds / ours.seconds,
        **{
            f"{name}_{what}": getattr(found, what)
            for name, found in (("ours", ours), ("converter", converter), ("onnxruntime", onnxruntime))
            for what in ("seconds", "peak_mb", "baseline_mb")
        },
    )
