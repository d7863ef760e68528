"""compile_subnets: from folded float blocks and their ranges to .tflite files, one core."""

from __future__ import annotations

import random
import statistics
import time

import pytest
import torch

from deploy.tflite.writer import write
from nas.blocks import SuperBlock, recalibrate
from nas.quant.float_graph import INPUT, fold_layers
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.space import Block, SearchSpace

LIMIT = 150.0
SPACE = SearchSpace("bench", 64, 64, (Block(1, 64, 4, 4),))
HEIGHT, WIDTH = 32, 64


def random_blocks(count: int):
    """(nodes, ranges) of random 4-layer, 64-channel blocks with calibrated ranges, and the calibration maps."""
    torch.manual_seed(0)
    rng = random.Random(0)
    supernet = SuperBlock(SPACE, 1).eval()
    x = torch.randn(4, 64, HEIGHT, WIDTH)
    blocks = []
    for subnet in rng.sample(list(SPACE.subnets(1)), count):
        y = x
        for layer in supernet.path(subnet):
            y = recalibrate(layer, y)
        nodes = fold_layers(supernet.path(subnet), "b", INPUT)
        blocks.append((nodes, calibrate(nodes, [x])))
    return blocks, x


@pytest.mark.benchmark(group="compile")
def test_compile_subnets(benchmark):
    pytest.importorskip("tensorflow", reason="needs the extra: pip install 'hilnas[tensorflow]'")
    from deploy.keras import converted

    torch.set_num_threads(1)
    blocks, x = random_blocks(24)

    def ours() -> int:
        return sum(len(write(lower(nodes, ranges, (HEIGHT, WIDTH, 64)))) for nodes, ranges in blocks)

    benchmark.pedantic(ours, rounds=7, warmup_rounds=1)
    converted(blocks[0][0], x)  # warm-up
    theirs = []
    for nodes, _ in blocks[:5]:
        start = time.perf_counter()
        converted(nodes, x)
        theirs.append(time.perf_counter() - start)
    per_second = len(blocks) / benchmark.stats.stats.median
    ratio = per_second * statistics.median(theirs)
    benchmark.extra_info.update(
        figure=per_second,
        unit="subnets/s",
        limit=LIMIT,
        holds=per_second >= LIMIT,
        ratio=ratio,
        against="TFLiteConverter",
    )
