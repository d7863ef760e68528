"""Examples of the user's network in any number, and their labels where the data set's classes are what it scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.formats.importers.network import ImportedNetwork
from deploy.quantize.calibration_data import CalibrationData, calibration_data
from deploy.quantize.image_preprocessing import ImagePreprocessing
from deploy.quantize.labelled import LabelledImages, labelled_images
from hil.errors import UsageError
from nas.data import DATASETS, open_data
from nas.quant.file_order import from_file_order
from nas.quant.float_graph import ArgMax, Node, Reshape, Sigmoid, Softmax
from nas.quant.shapes import Shape, shapes_of
from nas.tasks.task import TASKS, Task

BATCH, BATCH_ELEMENTS = 16, 1 << 18  # at most so many examples, or numbers; probes take a multiple of it


@dataclass(frozen=True, eq=False)
class OwnData:
    """What `--data` names.

    Attributes:
        spec: as it is given.
        preprocessing: how images become the input; None of arrays and noise.
    """

    network: ImportedNetwork
    spec: str
    preprocessing: ImagePreprocessing | None
    seed: int = 0

    def examples(self, count: int) -> CalibrationData:
        """At most so many, evenly spaced."""
        return calibration_data(self.spec, self.network, self.preprocessing, count, self.seed)

    def batches(self, count: int) -> list[Tensor]:
        """At most so many examples, as the float network reads them."""
        data, size = self.examples(count), max(1, min(BATCH, BATCH_ELEMENTS // prod(self.network.input.deployed_shape)))
        places = [range(start, min(start + size, data.count)) for start in range(0, data.count, size)]
        return [_as_read([data.example(i) for i in part]) for part in places]


def _as_read(examples: Sequence[NDArray[np.float32]]) -> Tensor:
    return from_file_order(torch.from_numpy(np.stack(examples)))


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a data set, and the tensor of the network that scores their classes.

    Attributes:
        scores: of the float network: the logits, before a softmax or an argmax.
    """

    data: OwnData
    task: Task
    classes: tuple[str, ...]
    scores: str

    def images(self, split: str, count: int) -> LabelledImages:
        """At most so many images of a split."""
        own = self.data
        return labelled_images(own.spec, own.network, own.preprocessing, count, seed=own.seed, split=split)

    def batches(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """At most so many training images with their labels (N,), or (N, H, W)."""
        data, images = self.images("train", count).data, self.data.batches(count)
        labels = torch.from_numpy(np.stack([data[i].label.astype(np.int64) for i in range(len(data))]))
        return list(zip(images, torch.split(labels, [len(x) for x in images]), strict=True))


def labels_of(data: OwnData) -> Labels:
    """The labels of a data set of `nas.data`; `UsageError` saying why there are none that the network's outputs fit."""
    kind = data.spec.partition(":")[0]
    if kind not in DATASETS or data.preprocessing is None:
        raise UsageError(f"--data {data.spec}: it has no labels; give a data set, as folders:FOLDER")
    network = data.network
    height, width, _ = network.input.deployed_shape
    found = open_data(data.spec, "train", (height, width), seed=data.seed, count=1, warn=False)
    task, count = TASKS[found.task], len(found.classes)
    nodes = {node.name: node for node in network.nodes}
    shapes = shapes_of(network.nodes, network.input.deployed_shape)
    fitting = [
        scores
        for value in network.outputs.values()
        if (scores := _scores(nodes, value.tensor, task)) is not None and _fits(shapes[scores], count, task)
    ]
    if len(fitting) != 1:
        what = "a map of scores" if task.dense else "scores"
        listed = ", ".join(f"'{name}' {_by(value.deployed_shape)}" for name, value in network.outputs.items())
        which = "none" if not fitting else "more than one"
        raise UsageError(
            f"--data {data.spec}: it has labels of {count} classes, and {which} of the outputs ({listed}) is {what} of "
            "so many, as logits or after a softmax"
        )
    return Labels(data, task, tuple(found.classes), fitting[0])


def _scores(nodes: Mapping[str, Node], name: str, task: Task) -> str | None:
    """The tensor with the logits of an output; None where a sigmoid made them independent of each other."""
    node = nodes.get(name)
    while isinstance(node, Softmax | ArgMax) or (isinstance(node, Reshape) and not task.dense):
        name = node.x
        node = nodes.get(name)
    return None if isinstance(node, Sigmoid) else name


def _fits(shape: Shape, classes: int, task: Task) -> bool:
    if shape[-1] != classes or classes < 2:
        return False
    return len(shape) == 3 and prod(shape) > classes if task.dense else prod(shape) == classes


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
