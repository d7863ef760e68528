"""What a network gets right of labelled images: as floats, and as any file made of it, on the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.compile.artifact import stored_input
from deploy.formats.importers.network import ImportedNetwork
from deploy.formats.tflite.here import RunHere
from deploy.formats.tflite.read import parse
from deploy.quantize.image_preprocessing import ImagePreprocessing
from deploy.quantize.quantized import Quantized
from deploy.ship.model_ends import ModelOutput, naming_output, output_of
from deploy.targets.inspection import GraphTensor
from hil.errors import ModelError, UsageError
from nas.data import Dataset, open_data
from nas.data.middle import Middle
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.float_graph import INPUT, ArgMax, Rearranging, inputs_of, stepwise
from nas.tasks.confusion import confusion, counted_cells
from nas.tasks.counted import Counted
from nas.tasks.task import TASKS

Answer = Callable[[NDArray[np.float32]], bytes]  # of all outputs, for one input
VALIDATION = "val"


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of a split of a data set, as the network reads them.

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

    def counts(self, quantized: Quantized, content: bytes) -> Counted:
        """Of the file with these bytes, of its integers, by this machine's runtime."""
        runtime = RunHere(content)

        def answer(x: NDArray[np.float32]) -> bytes:
            ((_, integers),) = quantized.inputs([x])
            return runtime.outputs(stored_input(quantized.graph, integers, quantized.option.form))

        read = parse(content, quantized.network.input_name)
        return self._counts(answer, output_of(read, TASKS[self.data.task], self.data.classes, self.data.size))

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
    spec: str,
    network: ImportedNetwork,
    images: ImagePreprocessing | None,
    count: int,
    *,
    seed: int = 0,
    split: str = VALIDATION,
) -> LabelledImages:
    """At most `count` images of a split of a data set of `nas.data`, evenly spaced.

    Raises:
        UsageError: nothing says how pixels become the network's input.
        ModelError: no output names the data set's classes.
        ConfigError, DataError: there is no such data set, or its files cannot be read.
    """
    shape = network.input.deployed_shape
    if images is None:
        raise UsageError(f"{spec}: nothing says how pixels become the network's input: add --mean and --std")
    images.check(shape)
    size = shape[0], shape[1]
    data: Dataset = open_data(spec, split, images.size or size, seed=seed, count=count)
    data = Middle(data, size) if images.size else data
    found = LabelledImages(network, data, images, f"{spec}, {len(data)} images of {split}")
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
