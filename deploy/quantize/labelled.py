"""What a network gets right of labelled images: as floats, and as any file made of it, on the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.compile.artifact import stored_input
from deploy.formats.importers.network import ImportedNetwork
from deploy.formats.tflite.here import RunHere
from deploy.formats.tflite.read import read
from deploy.quantize.image_preprocessing import ImagePreprocessing
from deploy.quantize.quantized import Quantized
from deploy.ship.model_ends import ModelOutput, naming_output, output_of
from deploy.targets.inspection import GraphTensor
from hil.errors import ModelError, UsageError
from nas.data import Dataset, open_data
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.float_graph import INPUT, ArgMax, Rearranging, inputs_of, stepwise
from nas.tasks.confusion import confusion, counted_cells
from nas.tasks.counted import Counted
from nas.tasks.task import TASKS

Answer = Callable[[NDArray[np.float32]], bytes]  # of all outputs, for one input
SPLIT = "val"


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of a data set's validation split, as the network reads them.

    Attributes:
        network: the float one; the metric is of whatever output names the classes of `data`.
        text: what they are, as screens and records show it.
    """

    network: ImportedNetwork
    data: Dataset
    images: ImagePreprocessing
    text: str

    @property
    def metric(self) -> str:
        return TASKS[self.data.task].metric

    @torch.no_grad()
    def float_counts(self) -> Counted:
        """Of the float network."""
        wanted, kinds = [value.tensor for value in self.network.outputs.values()], _kinds(self.network)

        def answer(x: NDArray[np.float32]) -> bytes:
            env = {INPUT: from_file_order(torch.from_numpy(x[None]))}
            found = {
                node.name: to_file_order(y).numpy().astype(kinds[node.name])
                for node, y in stepwise(self.network.nodes, env)
                if node.name in wanted
            }
            return b"".join(found[name].tobytes() for name in wanted)

        return self._counts(answer, self._float_output())

    def counts(self, quantized: Quantized, file: Path) -> Counted:
        """Of a file of its integers, by this machine's runtime."""
        runtime = RunHere(file.read_bytes())

        def answer(x: NDArray[np.float32]) -> bytes:
            ((_, integers),) = quantized.inputs([x])
            return runtime.outputs(stored_input(quantized.graph, integers, quantized.scheme.form))

        return self._counts(answer, output_of(read(file), TASKS[self.data.task], self.data.classes, self.data.size))

    def _float_output(self) -> ModelOutput:
        kinds = _kinds(self.network)
        ends = [
            GraphTensor(name, (1, *value.deployed_shape), kinds[value.tensor].__name__.upper(), (), ())
            for name, value in self.network.outputs.items()
        ]
        return naming_output(ends, TASKS[self.data.task], self.data.classes, self.data.size)

    def check(self) -> None:
        """`ModelError` where no output of the network, or several, name the data set's classes."""
        self._float_output()

    def _counts(self, answer: Answer, output: ModelOutput) -> Counted:
        shape, count = self.network.input.deployed_shape, len(self.data.classes)
        found = []
        for i in range(len(self.data)):
            x = self.images.input(self.data.original(i).image, shape)
            found.append(confusion(output.classes(answer(x)), self.data[i].label, count))
        return counted_cells(found, count, dense=TASKS[self.data.task].dense)


def labelled_images(
    spec: str, network: ImportedNetwork, images: ImagePreprocessing | None, count: int, seed: int = 0
) -> LabelledImages:
    """At most `count` images of the validation split of a data set of `nas.data`, evenly spaced.

    Raises:
        UsageError: nothing says how pixels become the network's input, or labels cannot follow the images there.
        ModelError: no output names the data set's classes.
        ConfigError, DataError: there is no such data set, or its files cannot be read.
    """
    shape = network.input.deployed_shape
    if images is None:
        raise UsageError(f"{spec}: nothing says how pixels become the network's input: add --mean and --std")
    images.check(shape)
    data = open_data(spec, SPLIT, (shape[0], shape[1]), seed=seed, count=count)
    if TASKS[data.task].dense and images.size:
        raise UsageError(
            f"{spec}: --size takes the middle of the images, and every pixel of them has a label; leave --size out"
        )
    found = LabelledImages(network, data, images, f"{spec}, {len(data)} images of {SPLIT}")
    try:
        found.check()
    except ModelError as error:
        raise ModelError(f"{spec}: {error}") from None
    return found


def _kinds(network: ImportedNetwork) -> dict[str, type[np.float32 | np.int32]]:
    """Of the numbers in each tensor: indices, and what only rearranges them, are integers."""
    kinds: dict[str, type[np.float32 | np.int32]] = {INPUT: np.float32}
    for node in network.nodes:
        read = {kinds[name] for name in inputs_of(node)} if isinstance(node, Rearranging) else set()
        kinds[node.name] = np.int32 if isinstance(node, ArgMax) or read == {np.int32} else np.float32
    return kinds
