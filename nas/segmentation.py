"""The task: cross-entropy against labels for training, mean IoU for judging."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import IGNORE, SegmentationData
from nas.data.augment import Augment
from nas.data.batches import load, training_batch
from nas.quant import simulate
from nas.quant.integer_graph import IntegerGraph
from nas.teacher import Segmenter, upsampled


def images_of(data: SegmentationData, count: int, *, shift: float = 0.0, batch_size: int = 16) -> Iterator[Tensor]:
    """`count` images at even distances over `data` (all, if fewer), in batches (N, 3, H, W), not augmented.

    `shift` (0 to 1, in distances) moves the choice, so that two sets can be disjoint.
    """
    count = min(count, len(data))
    indices = [int((i + shift) * len(data) / count) for i in range(count)]
    for start in range(0, count, batch_size):
        yield load(data, indices[start : start + batch_size])[0]


def cross_entropy(model: Segmenter, data: SegmentationData, batch_size: int, seed: int) -> Callable[[int], Tensor]:
    """The task's loss as a function of the step."""
    augment = Augment(data.size)

    def loss(step: int) -> Tensor:
        images, labels = training_batch(data, step, batch_size=batch_size, augment=augment, seed=seed)
        logits = upsampled(model(images.contiguous(memory_format=torch.channels_last)), data.size)
        return F.cross_entropy(logits, labels, ignore_index=IGNORE)

    return loss


def mean_iou(predict: Callable[[Tensor], Tensor], data: SegmentationData) -> float:
    """Mean intersection over union in percent of `predict` (images to class maps (N, H, W)) on all of `data`."""
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(len(data.classes), ignore_index=IGNORE, average="macro")
    with torch.no_grad():
        for start in range(0, len(data), 16):
            images, labels = load(data, range(start, min(start + 16, len(data))))
            metric.update(predict(images), labels)
    return 100 * float(metric.compute())


def mean_iou_float(model: Segmenter, data: SegmentationData) -> float:
    model.eval()
    return mean_iou(lambda images: upsampled(model(images), data.size).argmax(1), data)


def mean_iou_integer(graph: IntegerGraph, data: SegmentationData) -> float:
    """The deployed integers' mean IoU: what the board computes, image by image."""
    source = graph.tensors[graph.input]
    return mean_iou(lambda images: simulate.run(graph, simulate.quantize(images, source))[:, 0].long(), data)
