"""The table of what asymmetric weights gain, on a file whose layers are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deploy.cli import main
from deploy.formats.tflite.writer import write
from nas.quant.float_graph import INPUT, Conv
from nas.quant.post_training import quantize
from tests.deploy.tiny_experiment import one_line


def test_one_sided_kernels_gain_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    generator = torch.Generator().manual_seed(0)
    nodes = [
        Conv("stem", INPUT, torch.randn(8, 3, 3, 3, generator=generator), torch.zeros(8)),
        Conv("depthwise", "stem", torch.rand(8, 1, 5, 5, generator=generator), torch.zeros(8)),
        Conv("pointwise", "depthwise", torch.randn(6, 8, 1, 1, generator=generator), torch.zeros(6)),
    ]
    images = torch.rand(2, 3, 8, 8, generator=generator) * 1.9 - 1
    (tmp_path / "m.tflite").write_bytes(write(quantize(nodes, [images], (8, 8, 3))))
    assert main(["study", "few-bits", str(tmp_path / "m.tflite")]) == 0
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [line[0].strip() for line in lines] == ["layers", "---", "other", "depthwise", "pointwise"]
    ratios = {line[0].strip(): [float(value) for value in line[2:]] for line in lines[2:]}
    assert all(0.15 < ratio < 0.4 for ratio in ratios["depthwise"])  # half the step: a quarter of the error
    assert all(0.4 < ratio < 1 for ratio in ratios["other"])
    assert main(["study", "few-bits", str(tmp_path / "none.tflite")]) == 2
    one_line(capsys.readouterr().err, "none.tflite")
