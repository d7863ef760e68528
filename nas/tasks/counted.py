"""A metric as what it counts on each image, so that images can be resampled: is one model better than another?

Both metrics are means of ratios of counts that add up over images: mean IoU of intersections to unions, class by class;
top-1 of right answers to images. Images differ far more than models do, so two models are compared on the same
resampled images (a paired bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError
from nas.estimate import Estimate

RESAMPLES = 2000
QUANTILES = (0.025, 0.975)  # of a 95 % interval
DRAWN_AT_ONCE = 2**23  # numbers: a resample of ImageNet's validation images takes 400 kB


@dataclass(frozen=True, eq=False)
class Counted:
    """A model's counts on a data set.

    Attributes:
        hits: (images, K) int64; `totals`: likewise. K is the number of classes for mean IoU, 1 for top-1.
        score: the metric in percent; a class that neither labels nor predictions have does not count.
    """

    hits: NDArray[np.int64]
    totals: NDArray[np.int64]

    @property
    def score(self) -> float:
        return float(_scores(self, np.ones((1, len(self.hits)), dtype=np.int64))[0])


def _scores(counted: Counted, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """The metric (R,) in percent with every image taken so many times: (R, images)."""
    hits, totals = times @ counted.hits, times @ counted.totals  # (R, K)
    there = totals > 0
    ratios = np.divide(hits, totals, out=np.zeros(hits.shape), where=there)
    return np.asarray(100 * ratios.sum(axis=1) / np.maximum(there.sum(axis=1), 1))


def paired_difference(
    ours: Sequence[Counted], theirs: Sequence[Counted], *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """The mean score of `ours` less that of `theirs`, in points, with the interval that images leave.

    Each side is one model, or several trainings of one, on the same images. What another training would change is not
    in the interval. Raises `ConfigError` for different numbers of images, or none.
    """
    images = {len(counted.hits) for counted in (*ours, *theirs)}
    if len(images) != 1 or not ours or not theirs or images == {0}:
        raise ConfigError(f"a paired difference over {sorted(images)} images: score both models on the same ones")
    (count,) = images
    parts = (_mean(ours, times) - _mean(theirs, times) for times in _resampled(count, seed, resamples))
    drawn = np.concatenate(list(parts))  # (resamples,)
    low, high = np.quantile(drawn, QUANTILES)
    value = float(np.mean([c.score for c in ours]) - np.mean([c.score for c in theirs]))
    return Estimate(value, float(drawn.std()), float(low), float(high), count, "resampled")


def trained_difference(
    ours: Sequence[Counted], theirs: Sequence[Counted], *, block: int, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """As `paired_difference`, of trainings that are paired too (the i-th of both from one seed), over a video's frames.

    `block`: consecutive frames are alike, and so many are drawn together (a block bootstrap: Kuensch, The Jackknife and
    the Bootstrap for General Stationary Observations, 1989). Pairs of trainings are drawn again as the frames are, so
    the interval holds what another training would change, as far as so many pairs show it; of one pair it does not.
    Raises `ConfigError` for trainings or images that are no pairs, and for none.
    """
    images = {len(counted.hits) for counted in (*ours, *theirs)}
    if len(ours) != len(theirs) or not ours or len(images) != 1 or images == {0}:
        raise ConfigError(
            f"{len(ours)} and {len(theirs)} trainings over {sorted(images)} images: give pairs, on the same images"
        )
    if block < 1:
        raise ConfigError(f"block {block}: draw 1 image at a time, or more")
    (count,), trainings = images, len(ours)
    parts = (
        np.stack([_scores(one, times) - _scores(other, times) for one, other in zip(ours, theirs, strict=True)], axis=1)
        for times in _resampled(count, seed, resamples, block)
    )
    differences = np.concatenate(list(parts))  # (resamples, trainings)
    again = np.random.default_rng([seed, 1]).multinomial(trainings, np.full(trainings, 1 / trainings), size=resamples)
    drawn = (differences * again).sum(axis=1) / trainings
    low, high = np.quantile(drawn, QUANTILES)
    value = float(np.mean([one.score - other.score for one, other in zip(ours, theirs, strict=True)]))
    return Estimate(value, float(drawn.std()), float(low), float(high), count, "resampled")


def score_of(counted: Counted, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The metric in percent, with the interval that images leave. Raises `ConfigError` for no image."""
    count = len(counted.hits)
    if not count:
        raise ConfigError("a score over 0 images: score at least one")
    drawn = np.concatenate([_scores(counted, times) for times in _resampled(count, seed, resamples)])
    low, high = np.quantile(drawn, QUANTILES)
    return Estimate(counted.score, float(drawn.std()), float(low), float(high), count, "resampled")


def _resampled(count: int, seed: int, resamples: int, block: int = 1) -> Iterator[NDArray[np.int64]]:
    """How many times each of `count` images is drawn, (resamples, count), some rows at a time.

    `block`: so many consecutive images are drawn together.
    """
    rng, at_once, blocks = np.random.default_rng(seed), max(1, DRAWN_AT_ONCE // count), -(-count // block)
    for start in range(0, resamples, at_once):
        drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=min(at_once, resamples - start))
        yield np.repeat(drawn, block, axis=1)[:, :count]  # the last block may be shorter


def _mean(counted: Sequence[Counted], times: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.mean([_scores(one, times) for one in counted], axis=0))
