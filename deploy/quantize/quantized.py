"""A float network as integers: calibrated on data, written as .tflite with its golden pair and its record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.compile.artifact import Artifact, arithmetic_of, kernels_of, save_model
from deploy.compile.made_for import MADE_FOR
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.files import write_atomically
from deploy.formats.importers.network import ImportedNetwork
from deploy.formats.onnx import to_onnx
from deploy.formats.tflite.operators import Ends
from deploy.quantize.noise import noise_of
from deploy.quantize.record import NetworkOrigin, QuantizationRecord, TensorRecord
from deploy.quantize.scheme_option import OWN, SchemeOption
from deploy.run.records.base import plain
from deploy.ship.model_ends import IMAGES, IMPORTED
from deploy.targets.placement import Target
from hil.errors import ModelError, UsageError
from nas.quant import post_training
from nas.quant.arithmetic import LITERT
from nas.quant.file_order import from_file_order
from nas.quant.float_graph import INPUT, Const, Node
from nas.quant.integer_graph import IntegerGraph, IntTensor, Weighted
from nas.quant.ranges import minmax
from nas.quant.scheme import Scheme
from nas.quant.simulate import quantize as quantized

ONNX = ".onnx"
PER_CHANNEL = QuantizationScheme("channel")
NOISE_IMAGES = 8  # run as integers too; the noise of a network's tensors hardly depends on more
NOISE_NUMBERS = 650_000  # that the network reads in all of these: four images of 224x224x3 have as much to say
AT_ONCE = 320_000  # numbers that the network reads at once, two of 224x224x3: their maps stay near the processor


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network in integers beside the float operators that they stand for.

    Attributes:
        nodes: what was quantized: the network's operators, after what the scheme does to their weights.
        graph: their integers.
        option: what was chosen: the scheme, and what was done to weights and biases.
        noise_db: of every tensor, by its name (`deploy.quantize.noise`), over the first `noise_images`.
        images: how many it was calibrated on.
        example: the first of them, as the network reads it.
    """

    network: ImportedNetwork
    nodes: tuple[Node, ...]
    graph: IntegerGraph
    option: SchemeOption
    noise_db: Mapping[str, float]
    images: int
    noise_images: int
    example: Tensor

    @property
    def scheme(self) -> QuantizationScheme:
        return self.option.scheme

    @property
    def output_noise_db(self) -> float | None:
        """Of the noisiest output; None where all are indices, which have none."""
        found = [self.noise_db[name] for name in self.graph.outputs if name in self.noise_db]
        return max(found, default=None)

    def inputs(self, examples: Iterable[NDArray[np.float32]]) -> list[tuple[Tensor, Tensor]]:
        """Examples (H, W, C), or of the shape of an input that is no map, as the floats and the integers read them."""
        reals = [_read(self.network, example[None]) for example in examples]
        return [(x, quantized(x, self.graph.tensors[INPUT])) for x in reals]

    def save(
        self,
        folder: Path,
        name: str,
        data: str,
        origin: NetworkOrigin | None = None,
        target: Target | None = None,
        *,
        onnx: bool = False,
    ) -> Artifact:
        """Write NAME.int8.tflite (or NAME.uint8.tflite), its golden pair and quantization.json into `folder`.

        `data` says what was calibrated on. The expected output is by `target`'s arithmetic (None: a CPU's). `onnx`:
        also write NAME.int8.onnx, whose golden pair is the same. Raises `ModelError` naming an operator that the target
        cannot run, `QuantizationError` naming those that ONNX cannot hold; nothing is written then.
        """
        artifact = Artifact.at(folder, f"{name}.{self.scheme.activations}")
        bits = sorted({op.bits for op in self.graph.operators if isinstance(op, Weighted)})
        metadata: dict[str, object] = {
            IMPORTED: name,
            "scheme": str(self.option),
            "data": data,
            "requested_bits": bits,
            "size_bits": self.graph.size_bits,
        }
        if arithmetic_of(target) != LITERT and target is not None:
            metadata[MADE_FOR] = target.name
        if origin is not None and origin.images is not None:
            metadata[IMAGES] = plain(origin.images)
        content = to_onnx(self.graph, metadata, self.option.form) if onnx else None
        save_model(self.graph, self.example, artifact, metadata, target, form=self.option.form)
        beside = artifact.model.with_suffix(ONNX)
        if content is None:
            beside.unlink(missing_ok=True)  # of other integers than those that the .tflite file has now
        else:
            write_atomically(beside, content)
        self.record(name, data, origin).write(folder / QuantizationRecord.FILE)
        return artifact

    def record(self, name: str, data: str, origin: NetworkOrigin | None = None) -> QuantizationRecord:
        named = dict(zip((self.graph.input, *self.graph.outputs), self.graph.file_names, strict=True))
        tensors = tuple(
            _record(tensor, named.get(tensor.name, tensor.name), self.noise_db.get(tensor.name))
            for tensor in self.graph.tensors.values()
        )
        outputs, counted = self.graph.file_names[1:], (self.images, self.noise_images)
        return QuantizationRecord(name, str(self.option), data, *counted, outputs, tensors, origin)


def _record(tensor: IntTensor, name: str, noise_db: float | None) -> TensorRecord:
    low, high = ((end - tensor.zero_point) * tensor.scale for end in (-128, 127))
    return TensorRecord(name, tensor.file_shape, low, high, tensor.scale, tensor.zero_point, noise_db)


def quantize(
    network: ImportedNetwork,
    batches: Iterable[NDArray[np.float32]],
    scheme: QuantizationScheme = PER_CHANNEL,
    options: Scheme = OWN,
    in_float: Collection[str] = (),
    *,
    ends: Ends = "quantized",
) -> Quantized:
    """`network` in integers, calibrated on `batches` of what its file will read: (N, H, W, C), or (N, ...) of no map.

    `options` are the other choices of post-training quantization; the scheme gives their granularity. `in_float`:
    layers that stay in float; `ends`: type of the file's input and outputs. Raises `UsageError` for data of another
    shape, `QuantizationError` naming the operator or tensor that has no integers.
    """
    _check_outputs(network)
    data = [part for batch in batches if len(batch) for part in _parts(_read(network, batch))]
    if not data:
        raise UsageError("no calibration data: give at least one image or array")
    option, options = SchemeOption(scheme, options, tuple(in_float), ends), scheme.scheme(options)
    shape, outputs = network.input.deployed_shape, [value.tensor for value in network.outputs.values()]
    nodes = post_training.lowerable(network.nodes, shape)
    nodes = post_training.prepared(nodes, [{INPUT: x} for x in data], options, outputs)
    lows, highs = zip(*map(minmax, data), strict=True)
    input_range = min(lows), max(highs)
    left = replace(options, equalize=False)  # done above
    graph = post_training.quantize(nodes, data, shape, left, input_range, outputs=outputs, in_float=in_float)
    graph = replace(graph, file_names=(network.input_name, *network.outputs))
    first = _first(data, min(NOISE_IMAGES, max(1, NOISE_NUMBERS // data[0][0].numel())))
    noise = noise_of(nodes, graph, first, kernels_of(scheme.form, LITERT))
    count, noted = (sum(len(x) for x in part) for part in (data, first))
    return Quantized(network, tuple(nodes), graph, option, noise, count, noted, data[0][:1])


def _check_outputs(network: ImportedNetwork) -> None:
    constants = {node.name for node in network.nodes if isinstance(node, Const)}
    for name, value in network.outputs.items():
        if value.tensor == INPUT or value.tensor in constants:
            what = "the network's input" if value.tensor == INPUT else "a constant"
            raise ModelError(f"output '{name}' is {what}: leave it out, give the others with --outputs")


def _read(network: ImportedNetwork, batch: NDArray[np.float32]) -> Tensor:
    """As the float nodes read it."""
    wanted = network.input.deployed_shape
    if batch.shape[1:] != wanted:
        given, needed = ("x".join(map(str, shape)) for shape in (batch.shape[1:], wanted))
        raise UsageError(f"calibration data of shape {given}: the network reads {needed} (rows, columns, channels)")
    if not np.isfinite(batch).all():
        raise UsageError("calibration data holds NaN or infinity: leave those images out")
    return from_file_order(torch.from_numpy(np.ascontiguousarray(batch, np.float32)))


def _parts(x: Tensor) -> list[Tensor]:
    """`x` (N, ...), few examples at a time."""
    size = max(1, AT_ONCE // x[0].numel())
    return [x[i : i + size] for i in range(0, len(x), size)]


def _first(batches: list[Tensor], count: int) -> list[Tensor]:
    """The first `count` images, in their batches."""
    ends = list(accumulate(map(len, batches)))
    return [
        x[: count - end] if end > count else x for x, end in zip(batches, ends, strict=True) if end - len(x) < count
    ]
