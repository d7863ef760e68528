"""Segmentation: cross-entropy over labelled pixels for training, mean IoU for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import IGNORE, Dataset
from nas.data.batches import batches
from nas.networks.segmenter import upsampled
from nas.tasks.counted import Counted


def class_maps(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of every pixel (N, H, W), `size` = (H, W), from logits (N, classes, h, w)."""
    return upsampled(logits, size).argmax(1)


def pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over labelled pixels: logits (N, classes, h, w), labels int64 (N, H, W)."""
    height, width = labels.shape[1:]
    return F.cross_entropy(upsampled(logits, (height, width)), labels, ignore_index=IGNORE)


def counted(predict: Callable[[Tensor], Tensor], data: Dataset) -> Counted:
    """Mean intersection over union of `predict` (images to class maps (N, H, W)), image by image."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    classes, hits, totals = len(data.classes), [], []
    with torch.no_grad():
        for images, labels in batches(data):
            for predicted, label in zip(predict(images), labels, strict=True):
                matrix = multiclass_confusion_matrix(predicted, label, classes, ignore_index=IGNORE)  # (K, K)
                hits.append(matrix.diag())
                totals.append(matrix.sum(0) + matrix.sum(1) - matrix.diag())
    return Counted(torch.stack(hits).numpy(), torch.stack(totals).numpy())
