"""Confusion matrices per image give the metric that the tasks count themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.data import IGNORE, open_data
from nas.data.batches import batches
from nas.errors import ConfigError, DataError
from nas.tasks import counted as counted_module
from nas.tasks.confusion import class_scores, confusion, counted_cells
from nas.tasks.counted import Counted, paired_difference, score_of
from nas.tasks.task import TASKS

SIZE = (32, 40)


@pytest.mark.parametrize("spec", ["scenes", "shapes"])
def test_the_counts_are_the_tasks_own(spec: str) -> None:
    data = open_data(spec, "val", SIZE, count=12)
    task, classes = TASKS[data.task], len(data.classes)
    made = torch.Generator().manual_seed(3)
    labels = torch.cat([batch for _, batch in batches(data)])
    wrong = torch.rand(labels.shape, generator=made) < 0.4
    predicted = torch.where(wrong | (labels == IGNORE), torch.randint(0, classes, labels.shape, generator=made), labels)
    by_image = iter(predicted)
    own = task.counted(lambda images: torch.stack([next(by_image) for _ in images]), data)
    cells = [confusion(p.numpy(), label.numpy(), classes) for p, label in zip(predicted, labels, strict=True)]
    found = counted_cells(cells, classes, dense=task.dense)
    assert np.array_equal(found.hits, own.hits) and np.array_equal(found.totals, own.totals)
    by_class = [score for score in class_scores(cells, classes, dense=task.dense) if score is not None]
    if task.dense:
        assert np.mean(by_class) == pytest.approx(own.score)
        assert sum(n for image in cells for *_, n in image) == int((labels != IGNORE).sum())
    else:
        assert all(0 <= score <= 100 for score in by_class) and [len(image) for image in cells] == [1] * 12


def test_cells_are_label_prediction_and_count() -> None:
    label = np.array([[0, 0, 2, IGNORE]], np.uint8)
    assert confusion(np.array([[0, 1, 2, 9]]), label, 3) == ((0, 0, 1), (0, 1, 1), (2, 2, 1))
    assert class_scores([((0, 0, 1), (0, 1, 1), (2, 2, 1))], 4, dense=True) == (50.0, 0.0, 100.0, None)
    assert class_scores([((0, 1, 1),), ((0, 0, 1),), ((1, 1, 1),)], 3, dense=False) == (50.0, 100.0, None)


@pytest.mark.parametrize(
    ("predicted", "label", "words"), [(3, 0, "predicted class 3"), (-1, 0, "class -1"), (0, 7, "label 7")]
)
def test_a_class_that_is_not_there_is_an_error(predicted: int, label: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        confusion(np.array([[predicted]]), np.array([[label]], np.uint8), 3)


def test_a_score_has_the_interval_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    right = Counted((rng.random((200, 1)) < 0.7).astype(np.int64), np.ones((200, 1), np.int64))
    found = score_of(right)
    spread = 196 * float(np.sqrt(0.7 * 0.3 / 200))  # of a share, normal approximation, in percent
    assert found.value == right.score and found.n == 200 and found.source == "resampled"
    assert found.low == pytest.approx(found.value - spread, abs=1) and found.high < 100
    other = Counted(right.hits[::-1].copy(), right.totals)
    whole = paired_difference([right], [other])
    monkeypatch.setattr(counted_module, "DRAWN_AT_ONCE", 450)  # two rows at a time: the same draws
    assert score_of(right) == found and paired_difference([right], [other]) == whole
    with pytest.raises(ConfigError, match="0 images"):
        score_of(Counted(right.hits[:0], right.totals[:0]))
