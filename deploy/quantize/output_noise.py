"""The noise of a network's outputs, as its file gives them here: over more images than integers are simulated for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.compile.artifact import stored_input
from deploy.formats.importers.network import ImportedNetwork
from deploy.formats.tflite.here import RunHere
from deploy.quantize.noise import Sums
from deploy.quantize.quantized import Quantized
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.float_graph import INPUT, stepwise

MOST_IMAGES = 64  # of which a classifier's few scores have a noise that another image hardly changes
Example = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FloatAnswers:
    """Examples (H, W, C), or of the shape of an input that is no map, and the float network's outputs for each.

    Those are by their tensors' names, in the file's order of axes.
    """

    examples: tuple[Example, ...]
    outputs: tuple[Mapping[str, NDArray[np.float32]], ...]


@torch.no_grad()
def float_answers(network: ImportedNetwork, batches: Iterable[Example]) -> FloatAnswers:
    """Of the first examples in batches of them."""
    wanted, found = {value.tensor for value in network.outputs.values()}, []
    examples = tuple(islice(chain.from_iterable(batches), MOST_IMAGES))
    for x in examples:
        results = stepwise(network.nodes, {INPUT: from_file_order(torch.from_numpy(x[None]))})
        found.append({node.name: to_file_order(y).numpy() for node, y in results if node.name in wanted})
    return FloatAnswers(examples, tuple(found))


def output_noise_db(quantized: Quantized, content: bytes, answers: FloatAnswers) -> float | None:
    """Of the noisiest output of the file with these bytes; None where all are indices, which have none."""
    runtime, sums = RunHere(content), Sums()
    for (_, integers), wanted in zip(quantized.inputs(answers.examples), answers.outputs, strict=True):
        data = runtime.outputs(stored_input(quantized.graph, integers, quantized.option.form))
        for name, found in _outputs(quantized, data).items():
            real = torch.from_numpy(wanted[name].reshape(-1))
            sums.add(name, real, torch.from_numpy(found) - real)
    return max(sums.decibels().values(), default=None)


def _outputs(quantized: Quantized, data: bytes) -> dict[str, NDArray[np.float64]]:
    """The real values of the outputs that are no indices, from the bytes of all."""
    form, found, start = quantized.option.form, dict[str, NDArray[np.float64]](), 0
    kind = np.dtype(np.float32 if form.ends == "float" else form.activations)
    for tensor in (quantized.graph.tensors[name] for name in quantized.graph.outputs):
        count = prod(tensor.shape)
        if tensor.dtype == "int8":
            values = np.frombuffer(data, kind, count, start).astype(np.float64)
            if form.ends == "quantized":
                values = (values - (128 if kind == np.uint8 else 0) - tensor.zero_point) * tensor.scale
            found[tensor.name] = values
        start += count * (4 if tensor.dtype == "int32" else kind.itemsize)
    return found
