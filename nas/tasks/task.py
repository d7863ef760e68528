"""What the loop needs to know of a task: its network, the training loss and the evaluation metric.

A data set names its task (`Dataset.task`), and a network's class belongs to one: nothing else depends on the task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nas.data.ahead import made_ahead
from nas.data.augment import training_augment
from nas.data.batches import training_batch
from nas.data.sample import Dataset, TaskName
from nas.errors import ConfigError
from nas.networks.classifier import Classifier, PooledHead
from nas.networks.resnet import ResNet
from nas.networks.segmenter import Encoder, Head, Segmenter
from nas.quant import simulate
from nas.quant.float_graph import Node
from nas.quant.folding import fold_classifier, fold_resnet, fold_segmenter
from nas.quant.integer_graph import IntegerGraph
from nas.quant.simulate import Applied
from nas.space import Architecture, Choice, SearchSpace
from nas.tasks import classification, segmentation
from nas.tasks.counted import Counted
from nas.training.device import CPU

AnyHead: TypeAlias = Head | PooledHead
Network: TypeAlias = Encoder | ResNet


@dataclass(frozen=True)
class Task:
    """One task. Labels and predictions are int64: (N, H, W) for segmentation, (N,) for classification.

    Attributes:
        name: as data sets name it.
        metric: name of the evaluation metric, which is in percent; more is better.
        key: the metric's name in records (KEY_fp32, KEY_int8).
        dense: every pixel is classified, so the deployed network ends by resizing its map to the image.
        head: class of the head's settings.
        head_example: the head's settings as written in a configuration.
        build: a network from (space, its layers' choices, number of classes, head).
        folds: by class of network, its float nodes for images of (H, W), block weights in the architecture's bits.
        loss: from (logits, labels) to a scalar.
        predictions: from (float logits, (H, W) of the images) to classes.
        integer_predictions: from the deployed graph's output (N, C, H, W) to classes.
        counted: the metric's counts of (function from images to predictions, data).
    """

    name: TaskName
    metric: str
    key: str
    dense: bool
    head: type[Head] | type[PooledHead]
    head_example: str
    build: Callable[[SearchSpace, Sequence[Sequence[Choice]], int, Any], Encoder]
    folds: Mapping[type[nn.Module], Callable[[Any, tuple[int, int], Architecture | None], list[Node]]]
    loss: Callable[[Tensor, Tensor], Tensor]
    predictions: Callable[[Tensor, tuple[int, int]], Tensor]
    integer_predictions: Callable[[Tensor], Tensor]
    counted: Callable[[Callable[[Tensor], Tensor], Dataset], Counted]


TASKS: Mapping[TaskName, Task] = {
    "segmentation": Task(
        name="segmentation",
        metric="mIoU",
        key="miou",
        dense=True,
        head=Head,
        head_example="{ channels = 48, rates = [2, 4, 6] }",
        build=Segmenter,
        folds={Segmenter: fold_segmenter},
        loss=segmentation.pixel_cross_entropy,
        predictions=segmentation.class_maps,
        integer_predictions=lambda q: q[:, 0].long(),
        counted=segmentation.counted,
    ),
    "classification": Task(
        name="classification",
        metric="top-1",
        key="top1",
        dense=False,
        head=PooledHead,
        head_example="{ features = 256 }",
        build=lambda space, layers, classes, head: Classifier(space, layers, classes, head.features),
        folds={
            Classifier: lambda model, _, architecture: fold_classifier(model, architecture),
            ResNet: lambda model, *_: fold_resnet(model),
        },
        loss=torch.nn.functional.cross_entropy,
        predictions=lambda logits, _: logits.argmax(1),
        integer_predictions=lambda q: q[:, :, 0, 0].argmax(1),
        counted=classification.counted,
    ),
}


def network(data: Dataset, space: SearchSpace, layers: Sequence[Sequence[Choice]], head: AnyHead) -> Encoder:
    """An untrained network for the classes of `data`; `ConfigError` if the head is another task's."""
    task = TASKS[data.task]
    if not isinstance(head, task.head):
        raise ConfigError(
            f"teacher.head: data '{data.name}' is for {data.task}, whose head is written {task.head_example};"
            f" see deploy/configs/demo-{data.name}.toml"
        )
    return task.build(space, layers, len(data.classes), head)


def fold(model: Network, size: tuple[int, int], architecture: Architecture | None = None) -> list[Node]:
    """The float nodes of a network of any task, from an image of `size` = (H, W) to the deployed output."""
    known = (entry for task in TASKS.values() for entry in task.folds.items())
    folded = next(folded for kind, folded in known if isinstance(model, kind))
    return folded(model, size, architecture)


def training_batches(
    data: Dataset, batch_size: int, seed: int, device: torch.device = CPU
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """From a step to its augmented images and labels, made ahead for a GPU."""
    augment = training_augment(data)
    return made_ahead(
        lambda step: training_batch(data, step, batch_size=batch_size, augment=augment, seed=seed), device
    )


def training_loss(
    forward: Callable[[Tensor], Tensor], data: Dataset, batch_size: int, seed: int, *, device: torch.device = CPU
) -> Callable[[int], Tensor]:
    """The task's loss of `forward` (images to logits), which computes on `device`, as a function of the step."""
    task, batch = TASKS[data.task], training_batches(data, batch_size, seed, device)

    def loss(step: int) -> Tensor:
        images, labels = batch(step)
        logits = forward(images.contiguous(memory_format=torch.channels_last)).float()
        return task.loss(logits, labels.to(logits.device))

    return loss


def score_float(model: Network, data: Dataset) -> float:
    """The metric of `model` on all of `data`, in percent."""
    model.eval()
    task = TASKS[data.task]
    return task.counted(lambda images: task.predictions(model(images), data.size), data).score


def counted_integer(graph: IntegerGraph, data: Dataset, kernels: Applied = simulate.apply) -> Counted:
    """The metric of the deployed integers, image by image: what the board computes, by these kernels."""
    source, task = graph.tensors[graph.input], TASKS[data.task]

    def predict(images: Tensor) -> Tensor:
        return task.integer_predictions(simulate.run(graph, simulate.quantize(images, source), kernels))

    return task.counted(predict, data)


def score_integer(graph: IntegerGraph, data: Dataset, applied: Applied = simulate.apply) -> float:
    """The metric of the deployed integers, in percent."""
    return counted_integer(graph, data, applied).score
