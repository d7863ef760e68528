"""Classification: top-1 accuracy for judging."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nas.data import Dataset
from nas.data.batches import batches


def top1(predict: Callable[[Tensor], Tensor], data: Dataset) -> float:
    """Images of `data` in percent whose class `predict` (images to classes (N,)) names."""
    with torch.no_grad():
        right = sum(int((predict(images) == labels).sum()) for images, labels in batches(data))
    return 100 * right / len(data)
