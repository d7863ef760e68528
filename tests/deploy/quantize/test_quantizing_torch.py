"""From a torch network to a file, in Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

pytest.importorskip("onnx")

from deploy.formats.importers.torch import import_torch
from deploy.quantize import quantize
from hil.errors import ModelError


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)

    def forward(self, x):
        y = nn.functional.silu(self.norm(self.conv(x)))
        return self.up(y * self.gate(y))


def test_a_network(tmp_path):
    torch.manual_seed(0)
    model = Gated().train()
    images = np.random.default_rng(0).standard_normal((6, 16, 20, 3)).astype(np.float32)
    network = import_torch(model, torch.zeros(1, 3, 16, 20))
    assert model.training
    artifact = quantize(network, [images]).save(tmp_path, "gated", "noise")
    interpreter = Interpreter(str(artifact.model))
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert (source["name"], source["shape"].tolist()) == ("input", [1, 16, 20, 3])
    for image in images:
        scale, zero_point = source["quantization"]
        q = np.clip(np.rint(image / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], q[None])
        interpreter.invoke()
        scale, zero_point = sink["quantization"]
        real = (interpreter.get_tensor(sink["index"]).astype(np.float64) - zero_point) * scale
        with torch.no_grad():
            wanted = model.eval()(torch.from_numpy(image).permute(2, 0, 1)[None]).permute(0, 2, 3, 1).numpy()
        assert ((real - wanted) ** 2).sum() < 0.01 * (wanted**2).sum()  # -20 dB


def test_what_torch_cannot_export():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("only\nfor training")

    with pytest.raises(ModelError, match=r"^Broken: torch does not export it \(ValueError: only\)"):
        import_torch(Broken(), torch.zeros(1, 3, 4, 4))
