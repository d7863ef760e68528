"""Segmentation: cross-entropy over labelled pixels for training, mean IoU for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import IGNORE, Dataset
from nas.data.batches import batches
from nas.networks.segmenter import upsampled


def class_maps(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of every pixel (N, H, W), `size` = (H, W), from logits (N, classes, h, w)."""
    return upsampled(logits, size).argmax(1)


def pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over labelled pixels: logits (N, classes, h, w), labels int64 (N, H, W)."""
    height, width = labels.shape[1:]
    return F.cross_entropy(upsampled(logits, (height, width)), labels, ignore_index=IGNORE)


def mean_iou(predict: Callable[[Tensor], Tensor], data: Dataset) -> float:
    """Mean intersection over union in percent of `predict` (images to class maps (N, H, W)) on all of `data`."""
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(len(data.classes), ignore_index=IGNORE, average="macro")
    with torch.no_grad():
        for images, labels in batches(data):
            metric.update(predict(images), labels)
    return 100 * float(metric.compute())
