"""training_batch: crops from images at their own resolution against crops from images that were reduced before.

Processor time of a batch as `demo-camvid` has it: 144x192 out of 360x480. What it adds to a training step of that size,
which takes hundreds of milliseconds, is a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from nas.data import Crops
from nas.data.augment import Augment, training_augment
from nas.data.batches import training_batch
from nas.data.scenes import DETAIL, Scenes

LIMIT = 2.0  # times the time of crops from reduced images
STORED, DEPLOYED, CROP = (360, 480), (192, 256), (144, 192)
IMAGES, BATCH_SIZE, STEPS = 16, 8, 20


@pytest.mark.benchmark(group="data")
def test_training_batch(benchmark):
    height, width = (length // DETAIL for length in STORED)
    stored = Scenes("train", (height, width), count=IMAGES)  # its originals measure STORED
    augment = training_augment(Scenes("train", DEPLOYED, count=1, crops=Crops(CROP)))
    reduced = Scenes("train", (CROP[0] // DETAIL, CROP[1] // DETAIL), count=IMAGES)
    seconds = {"stored": 0.0, "reduced": 0.0}

    def timed(way: str, data: Scenes, augmented: Augment) -> Callable[[int], None]:
        def batch(step: int) -> None:
            start = time.process_time()
            training_batch(data, step, batch_size=BATCH_SIZE, augment=augmented, seed=0)
            seconds[way] += time.process_time() - start

        return batch

    ways = timed("stored", stored, augment), timed("reduced", reduced, Augment(CROP))

    def both() -> None:
        for step in range(STEPS):
            for batch in ways:
                batch(step)

    both()  # draws the images
    seconds.update(stored=0.0, reduced=0.0)
    benchmark.pedantic(both, rounds=2)
    ratio = seconds["stored"] / seconds["reduced"]
    benchmark.extra_info.update(
        figure=ratio,
        unit="times the time of crops from reduced images",
        limit=LIMIT,
        holds=ratio <= LIMIT,
        stored_ms=1e3 * seconds["stored"] / (2 * STEPS),
        reduced_ms=1e3 * seconds["reduced"] / (2 * STEPS),
    )
