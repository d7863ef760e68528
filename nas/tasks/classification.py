"""Classification: top-1 accuracy for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nas.data import Dataset
from nas.data.batches import batches


def top1(predict: Callable[[Tensor], Tensor], data: Dataset) -> float:
    """The percentage of images of `data` whose class `predict` (images to classes (N,)) predicts."""
    with torch.no_grad():
        correct = sum(int((predict(images) == labels).sum()) for images, labels in batches(data))
    return 100 * correct / len(data)
