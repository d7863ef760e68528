"""class_map: what the CPU makes of logits at output stride, against an arg-max over the upsampled ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from board_scripts.class_map import class_map
from nas.quant.integer_resizing import bilinear

LIMIT = 3.0  # times numpy.argmax over the upsampled logits
CLASSES, MAP, SIZE = 19, (64, 128), (512, 1024)
ROUNDS = 15


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.mark.benchmark(group="class_map")
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_class_map(benchmark, kind):
    rng = np.random.default_rng(0)
    logits = rng.integers(-128, 128, (1, *MAP, CLASSES)).astype(np.int8)
    up = bilinear(torch.from_numpy(logits).permute(0, 3, 1, 2).float(), SIZE)
    upsampled = np.ascontiguousarray(up.permute(0, 2, 3, 1).numpy().astype(np.int8))
    given = logits if kind == "int8" else logits.view(np.uint8) ^ 128

    found = benchmark.pedantic(class_map, args=(np, given, (SIZE,)), rounds=ROUNDS, warmup_rounds=2)
    np.testing.assert_array_equal(found, upsampled.argmax(-1))
    pairs = [
        (seconds(lambda: class_map(np, given, (SIZE,))), seconds(lambda: upsampled.argmax(-1))) for _ in range(ROUNDS)
    ]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    benchmark.extra_info.update(
        figure=ours / theirs,
        unit="times numpy.argmax over the upsampled logits",
        limit=LIMIT,
        holds=ours / theirs <= LIMIT,
    )
