"""Scores from counts per image equal the metric's own; the paired bootstrap equals a slow one, and covers the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from nas.data import IGNORE, open_data
from nas.data.batches import batches
from nas.errors import ConfigError
from nas.tasks import segmentation
from nas.tasks.counted import Counted, paired_difference, trained_difference
from nas.tasks.task import TASKS

SIZE = (32, 40)


def guesses(labels: torch.Tensor, wrong: float, seed: int) -> torch.Tensor:
    """The labels, so many of them replaced by random classes."""
    made = torch.Generator().manual_seed(seed)
    replaced = torch.rand(labels.shape, generator=made) < wrong
    return torch.where(replaced | (labels == IGNORE), torch.randint(0, 5, labels.shape, generator=made), labels)


def maps(wrong: float, seed: int, count: int = 12) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Predicted and true class maps of scenes, image by image."""
    labels = torch.cat([batch for _, batch in batches(open_data("scenes", "val", SIZE, count=count))])
    return list(guesses(labels, wrong, seed)), list(labels)


def jaccard(predicted: list[torch.Tensor], labels: list[torch.Tensor], classes: int) -> float:
    metric = MulticlassJaccardIndex(classes, ignore_index=IGNORE, average="macro")
    metric.update(torch.stack(predicted), torch.stack(labels))
    return 100 * float(metric.compute())


def counted_of(predicted: list[torch.Tensor], count: int = 12) -> Counted:
    by_image = iter(predicted)
    data = open_data("scenes", "val", SIZE, count=count)
    return segmentation.counted(lambda images: torch.stack([next(by_image) for _ in images]), data)


@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_the_score_is_torchmetrics_mean_iou(wrong: float) -> None:
    predicted, labels = maps(wrong, 1)
    classes = len(open_data("scenes", "val", SIZE).classes)
    found = counted_of(predicted)
    assert found.hits.shape == found.totals.shape == (12, classes)
    assert found.score == pytest.approx(jaccard(predicted, labels, classes), abs=1e-4)


def test_the_interval_is_that_of_scoring_every_resample_anew() -> None:
    """The same draws, each put together image by image and scored by torchmetrics."""
    (ours, labels), (theirs, _) = maps(0.3, 1), maps(0.35, 2)
    classes, resamples = len(open_data("scenes", "val", SIZE).classes), 40
    times = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=resamples)
    slow = []
    for drawn in times:
        chosen = [i for i, n in enumerate(drawn) for _ in range(n)]
        truth = [labels[i] for i in chosen]
        slow.append(
            jaccard([ours[i] for i in chosen], truth, classes) - jaccard([theirs[i] for i in chosen], truth, classes)
        )
    found = paired_difference([counted_of(ours)], [counted_of(theirs)], seed=5, resamples=resamples)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=1e-3)
    assert found.value == pytest.approx(jaccard(ours, labels, classes) - jaccard(theirs, labels, classes), abs=1e-3)
    assert (found.n, found.source) == (12, "resampled") and found.std_error == pytest.approx(np.std(slow), abs=1e-3)


def test_pairs_share_their_images() -> None:
    """Of models that differ on every image alike nothing is in doubt, however the images differ."""
    rng = np.random.default_rng(0)
    totals = np.full((50, 1), 100)
    theirs = Counted(rng.integers(0, 80, (50, 1)), totals)
    ours = Counted(theirs.hits + 3, totals)
    found = paired_difference([ours], [theirs])
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(1), 0
    for trial in range(200):
        theirs, ours = (rng.random((80, 1)) < p for p in (0.6, 0.7))
        one = np.ones((80, 1), dtype=np.int64)
        found = paired_difference([Counted(ours * one, one)], [Counted(theirs * one, one)], seed=trial, resamples=300)
        held += found.low <= 10 <= found.high
    assert 178 <= held <= 200


def test_several_trainings_are_compared_by_their_means() -> None:
    one = np.ones((8, 1), dtype=np.int64)
    half = Counted(one * (np.arange(8) % 2)[:, None], one)
    found = paired_difference([Counted(one, one), half], [half])
    assert found.value == 25.0 and found.low < 25.0 < found.high


def test_a_class_that_nobody_has_does_not_count() -> None:
    assert Counted(np.array([[3, 0]]), np.array([[4, 0]])).score == 75.0
    assert Counted(np.array([[0, 0]]), np.array([[0, 0]])).score == 0.0


def test_models_scored_on_other_images_are_refused() -> None:
    one = np.ones((8, 1), dtype=np.int64)
    for others in ([Counted(one[:7], one[:7])], []):
        with pytest.raises(ConfigError, match="score both models on the same ones"):
            paired_difference([Counted(one, one)], others)


def test_top1_has_one_ratio() -> None:
    data = open_data("shapes", "val", (24, 24), count=20)
    found = TASKS["classification"].counted(lambda images: torch.zeros(len(images), dtype=torch.int64), data)
    assert found.hits.shape == (20, 1) and found.totals.sum() == 20


def answers(right: float, seed: int, count: int = 101) -> Counted:
    """Of a classifier, on so many images."""
    hits = np.random.default_rng(seed).random((count, 1)) < right
    return Counted(hits.astype(np.int64), np.ones((count, 1), dtype=np.int64))


def test_one_pair_of_trainings_over_single_images_is_the_paired_difference() -> None:
    one, two = answers(0.8, 1), answers(0.7, 2)
    assert trained_difference([one], [two], block=1, seed=3) == paired_difference([one], [two], seed=3)


@pytest.mark.parametrize("block", [1, 10, 30, 200])
def test_frames_are_drawn_in_blocks_and_trainings_in_pairs(block: int) -> None:
    """The same draws, each put together block by block and training by training."""
    ours, theirs = [answers(0.8, i) for i in range(3)], [answers(0.7, 10 + i) for i in range(3)]
    blocks, resamples = -(-101 // block), 50
    times = np.random.default_rng(5).multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples)
    again = np.random.default_rng([5, 1]).multinomial(3, np.full(3, 1 / 3), size=resamples)
    slow = []
    for drawn, pairs in zip(times, again, strict=True):
        frames = [f for b, n in enumerate(drawn) for _ in range(n) for f in range(b * block, min(101, (b + 1) * block))]
        chosen = [i for i, n in enumerate(pairs) for _ in range(n)]
        right = [(ours[i].hits[frames].mean() - theirs[i].hits[frames].mean()) for i in chosen]
        slow.append(100 * float(np.mean(right)))
    found = trained_difference(ours, theirs, block=block, seed=5, resamples=resamples)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=1e-9)
    assert found.value == pytest.approx(np.mean([a.score - b.score for a, b in zip(ours, theirs, strict=True)]))


def test_what_trainings_differ_by_is_in_the_interval() -> None:
    right = [answers(share, 1) for share in (0.9, 0.5)]
    other = [answers(share, 1) for share in (0.5, 0.9)]
    found = trained_difference(right, other, block=10)
    assert found.value == pytest.approx(0) and found.low < -25 and found.high > 25
    assert trained_difference(right[:1], other[:1], block=10).low > 25


def test_frames_that_are_alike_widen_the_interval() -> None:
    drives = np.repeat(np.random.default_rng(0).random((10, 1)) < 0.5, 10, axis=0).astype(np.int64)
    alike, none = Counted(drives, np.ones_like(drives)), Counted(0 * drives, np.ones_like(drives))
    blocks, single = (trained_difference([alike], [none], block=block) for block in (10, 1))
    assert blocks.std_error > 2 * single.std_error


@pytest.mark.parametrize(
    ("ours", "theirs", "block", "words"),
    [
        ([1, 2], [3], 10, "2 and 1 trainings"),
        ([], [], 10, "0 and 0 trainings"),
        ([1], [3], 0, "block 0"),
    ],
)
def test_trainings_that_are_no_pairs(ours: list[int], theirs: list[int], block: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trained_difference([answers(0.8, i) for i in ours], [answers(0.8, i) for i in theirs], block=block)
    with pytest.raises(ConfigError, match="images: give pairs"):
        trained_difference([answers(0.8, 1)], [answers(0.8, 1, count=100)], block=10)
