"""A network from torch, from Python; and what docs/own-network.md shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx")

from deploy.compile.scheme import QuantizationScheme
from deploy.quantize import quantize_model
from deploy.quantize.record import QuantizationRecord
from hil.errors import ModelError, UsageError
from tests.conftest import REPOSITORY
from tests.deploy.networks import interpret
from tests.reference.documented import blocks

PAGE = REPOSITORY / "docs" / "own-network.md"


class Network(nn.Module):
    """A residual, a squeeze and excite, a classifier; dropout, which evaluation leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardswish())
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.conv(x) * self.gate(x)
        result: torch.Tensor = self.end(x)
        return result


@pytest.fixture
def model() -> Network:
    torch.manual_seed(0)
    return Network()


def images(count=6) -> torch.Tensor:
    return torch.rand(count, 3, 12, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scheme", ["channel int8", "tensor uint8"])
def test_its_file_computes_what_the_module_does(tmp_path, model, scheme):
    x = images()
    quantized = quantize_model(model, x[:1], x, QuantizationScheme.parse(scheme))
    artifact = quantized.save(tmp_path, "net", "images")
    source = quantized.graph.tensors[quantized.graph.input]
    q = np.frombuffer(artifact.input.read_bytes(), source_type := np.dtype(scheme.split()[1])).reshape(1, 12, 16, 3)
    found = interpret(artifact.model.read_bytes(), q)
    assert found.tobytes() == artifact.expected.read_bytes()
    sink = quantized.graph.tensors[quantized.graph.output]
    offset = 128 if source_type == np.uint8 else 0
    real = (found.reshape(-1).astype(float) - offset - sink.zero_point) * sink.scale
    with torch.no_grad():
        wanted = model.eval()(x[:1])[0].numpy()
    assert np.abs(real - wanted).max() < 0.05 * np.abs(wanted).max()
    assert QuantizationRecord.read(tmp_path / QuantizationRecord.FILE).images == len(x)
    assert source.scale == pytest.approx(1 / 255, rel=0.05)


def test_batches_give_what_one_tensor_does(model):
    x = images()
    whole, parts = quantize_model(model, x[:1], x), quantize_model(model, x[:1], iter([x[:2], x[2:5], x[5:]]))
    scales = [{name: tensor.scale for name, tensor in one.graph.tensors.items()} for one in (whole, parts)]
    assert scales[0].keys() == scales[1].keys()
    assert all(scales[1][name] == pytest.approx(scale, rel=1e-5) for name, scale in scales[0].items())
    assert model.training  # left as it was


class Indexed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(x)


def test_what_does_not_fit_is_one_line(model):
    x = images()
    with pytest.raises(UsageError, match="calibration batch 0 is 6x12x16x3, the network reads Nx3x12x16"):
        quantize_model(model, x[:1], x.permute(0, 2, 3, 1))
    with pytest.raises(UsageError, match="holds float64, the network reads float32"):
        quantize_model(model, x[:1], x.double())
    with pytest.raises(UsageError, match="no calibration batch"):
        quantize_model(model, x[:1], [])
    with pytest.raises(ModelError, match="Indexed: torch does not export it"):
        quantize_model(Indexed(), x[:1], x)


def test_what_the_page_shows_runs_as_it_stands(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    shown = [block.text for block in blocks(PAGE) if "import torch" in block.text]
    assert len(shown) == 2
    export, script = shown
    exec(export, {"model": nn.Conv2d(3, 4, 3)})  # noqa: S102
    assert (tmp_path / "network.onnx").is_file()
    exec(script, {})  # noqa: S102
    assert (tmp_path / "int8" / "network.int8.tflite").is_file()
