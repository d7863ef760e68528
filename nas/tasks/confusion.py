"""The confusion matrix of one image, and the metric from those of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.data.sample import IGNORE
from nas.errors import DataError
from nas.tasks.counted import Counted

Cell: TypeAlias = tuple[int, int, int]
Confusion: TypeAlias = tuple[Cell, ...]
"""One image's matrix by its cells that are not zero: (label, predicted class, number of pixels), sorted.

Of classification it is one cell, of one image.
"""


def confusion(predicted: NDArray[np.int64], label: NDArray[np.integer], classes: int) -> Confusion:
    """Of one image: classes and labels (H, W), of which those labelled IGNORE do not count, or ().

    Raises `DataError` for a class or a label that is none of the `classes`.
    """
    kept = np.ones(label.shape, dtype=bool) if label.ndim == 0 else label != IGNORE
    pairs = np.stack([label[kept].reshape(-1).astype(np.int64), predicted[kept].reshape(-1).astype(np.int64)])
    for what, values in zip(("label", "predicted class"), pairs, strict=True):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            wrong = values[(values < 0) | (values >= classes)][0]
            raise DataError(f"{what} {wrong}, but there are {classes} classes (0 to {classes - 1})")
    codes, counts = np.unique(pairs[0] * classes + pairs[1], return_counts=True)
    return tuple((int(code) // classes, int(code) % classes, int(n)) for code, n in zip(codes, counts, strict=True))


def counted_cells(images: Sequence[Confusion], classes: int, *, dense: bool) -> Counted:
    """What the metric counts on each image: intersections and unions by class where every pixel is classified
    (`dense`), right answers otherwise.
    """
    if not dense:
        right = [[sum(n for label, predicted, n in cells if label == predicted)] for cells in images]
        return Counted(np.array(right, np.int64).reshape(-1, 1), np.ones((len(images), 1), np.int64))
    hits, totals = np.zeros((2, len(images), classes), np.int64)
    for i, cells in enumerate(images):
        for label, predicted, n in cells:
            totals[i, label] += n
            if label == predicted:
                hits[i, label] += n
            else:
                totals[i, predicted] += n
    return Counted(hits, totals)


def class_scores(images: Sequence[Confusion], classes: int, *, dense: bool) -> tuple[float | None, ...]:
    """By class its IoU (`dense`), or the share of its images that are right, in percent; None where there is none."""
    hits, totals = np.zeros((2, classes), np.int64)
    for cells in images:
        for label, predicted, n in cells:
            totals[label] += n
            hits[label] += n if label == predicted else 0
            if dense and label != predicted:
                totals[predicted] += n
    return tuple(100 * int(h) / int(t) if t else None for h, t in zip(hits, totals, strict=True))
