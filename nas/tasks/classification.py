"""Classification: top-1 accuracy for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nas.data import Dataset
from nas.data.batches import batches
from nas.tasks.counted import Counted


def counted(predict: Callable[[Tensor], Tensor], data: Dataset) -> Counted:
    """Top-1 of `predict` (images to classes (N,)), image by image."""
    with torch.no_grad():
        right = torch.cat([predict(images) == labels for images, labels in batches(data)])[:, None]
    return Counted(right.long().numpy(), torch.ones_like(right, dtype=torch.int64).numpy())
