"""From a network or a quantized block to the file that the board runs, with the golden input and output.

Every compiled model is three files: `NAME.tflite`, its input and the output that the integer simulation
gives for it, as raw little-endian bytes. Whoever runs the model compares before timing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deploy.run import write_atomically
from deploy.tflite.writer import write
from hil.measure import Job
from nas.quant import float_graph, post_training, simulate
from nas.quant.integer_graph import IntegerGraph, QConv
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Architecture
from nas.teacher import Segmenter


@dataclass(frozen=True)
class Artifact:
    """A compiled model and its golden pair."""

    name: str
    model: Path
    input: Path
    expected: Path

    @classmethod
    def at(cls, folder: Path, name: str, shared_input: str | None = None) -> Artifact:
        source = folder / f"{shared_input or name}.input.bin"
        return cls(name, folder / f"{name}.tflite", source, folder / f"{name}.expected.bin")

    @property
    def exists(self) -> bool:
        return self.model.exists() and self.input.exists() and self.expected.exists()

    def job(self) -> Job:
        return Job(model=self.model, name=self.name, input=self.input, expected=self.expected)


def quantize(
    model: Segmenter,
    images: Iterable[Tensor],
    size: tuple[int, int],
    *,
    architecture: Architecture | None = None,
    scheme: Scheme = DEFAULT,
) -> IntegerGraph:
    """The whole network, image to class map, calibrated on `images` (batches (N, 3, H, W))."""
    model.eval()
    nodes = float_graph.fold_segmenter(model, size, architecture)
    return post_training.quantize(nodes, images, (*size, 3), scheme)


def golden_pair(graph: IntegerGraph, image: Tensor) -> tuple[bytes, bytes]:
    """Input and expected output bytes for one image (1, 3, H, W)."""
    q = simulate.quantize(image, graph.tensors[graph.input])
    output = simulate.run(graph, q)
    kind = np.int32 if graph.tensors[graph.output].dtype == "int32" else np.int8
    return simulate.as_nhwc(q).tobytes(), simulate.as_nhwc(output, kind).tobytes()


def save_model(graph: IntegerGraph, image: Tensor, artifact: Artifact, metadata: dict[str, object]) -> Artifact:
    """Compile a whole model and write its three files; the model last, so that it stands for all of them."""
    source, expected = golden_pair(graph, image)
    write_atomically(artifact.input, source)
    write_atomically(artifact.expected, expected)
    write_atomically(artifact.model, write(graph, metadata))
    return artifact


def bits_outside_blocks(graph: IntegerGraph) -> int:
    """Bits of the stem, the first inverted residual and the head: what no choice changes."""
    parts = ("stem", "first/", "head/", "logits")
    return sum(op.size_bits for op in graph.operators if isinstance(op, QConv) and op.name.startswith(parts))


def calibration_batch(batches: Iterable[Tensor]) -> Tensor:
    """A stream of batches as one (N, 3, H, W)."""
    return torch.cat(list(batches))
