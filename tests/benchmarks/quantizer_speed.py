"""A MobileNetV2 of 224x224, 100 images: from a float network to a written INT8 file, by one of three quantizers.

    .venv/bin/python -m tests.benchmarks.quantizer_speed NETWORK.onnx ours|onnxruntime|tensorflow

prints one JSON object. Imports, the images and the network that TensorFlow gets (Keras's, of the same architecture) are
there before the clock starts; the memory that they take is the baseline. Processor time of all threads.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIZE, IMAGES, BATCH = 224, 100, 16
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Of MobileNetV2: expansion, channels, layers, stride (arXiv 1801.04381, table 2)."""
Work = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """`peak_mb` is the process's whole peak, `baseline_mb` what it was before the work."""

    seconds: float
    peak_mb: float
    baseline_mb: float


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return [conv, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        first = [*convolution(inputs, wide, 1), nn.ReLU6()] if expansion > 1 else []
        layers = [*first, *convolution(wide, wide, 3, stride, wide), nn.ReLU6(), *convolution(wide, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


def mobilenet_v2() -> nn.Module:
    """With random weights, of a size that keeps maps of the same size from layer to layer."""
    layers, inputs = [*convolution(3, 32, 3, 2), nn.ReLU6()], 32
    for expansion, outputs, count, stride in STAGES:
        for i in range(count):
            layers.append(Residual(inputs, outputs, expansion, stride if i == 0 else 1))
            inputs = outputs
    last = [*convolution(inputs, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, *last).eval()


def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((IMAGES, SIZE, SIZE, 3), np.float32) * 2 - 1


def ours(network: Path, folder: Path) -> Work:
    import onnx  # noqa: F401 (the importer does, when it first reads such a file)

    from deploy.formats.importers.files import import_network
    from deploy.quantize import quantize

    x = images()

    def work() -> None:
        batches = [x[i : i + BATCH] for i in range(0, IMAGES, BATCH)]
        quantize(import_network(network), batches).save(folder, "network", "random images")

    return work


def onnxruntime(network: Path, folder: Path) -> Work:
    from tests.benchmarks.other_quantizers import by_onnxruntime, fixed_onnx

    x = images().transpose(0, 3, 1, 2).copy()
    return lambda: by_onnxruntime(fixed_onnx(network, (1, 3, SIZE, SIZE), folder), x, folder / "network.int8.onnx")


def tensorflow(network: Path, folder: Path) -> Work:
    import tensorflow as tf

    from tests.benchmarks.other_quantizers import converted

    x, model = images(), tf.keras.applications.MobileNetV2(weights=None)
    return lambda: (folder / "network.int8.tflite").write_bytes(converted(model, x))


QUANTIZERS = {"ours": ours, "onnxruntime": onnxruntime, "tensorflow": tensorflow}


def cost(work: Work) -> Cost:
    baseline, start = peak_mb(), time.process_time()
    work()
    return Cost(time.process_time() - start, peak_mb(), baseline)


def peak_mb() -> float:
    """Of this program: `ru_maxrss` begins with that of the process which started it."""
    status = Path("/proc/self/status").read_text(encoding="utf8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def main(network: Path, quantizer: str) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asdict(cost(QUANTIZERS[quantizer](network, Path(folder))))))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
