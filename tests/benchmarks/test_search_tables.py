"""nsr_tree: a block's NSR table by the tree of prefixes against one subnet after the other, the same numbers."""

from __future__ import annotations

import random
import time

import pytest
import torch

from nas.blocks import SuperBlock
from nas.nsr import BlockData, judge
from nas.space import Block, SearchSpace
from nas.threads import one_thread

LIMIT = 2.6  # times as fast; counting layers, 4 * 6**4 / (6 + 6**2 + 6**3 + 6**4) = 3.34
ALONE = 48  # subnets that are judged one by one; all 1 296 would take minutes
SPACE = SearchSpace("bench", 24, 24, (Block(1, 24, 4, 4),))


@pytest.mark.benchmark(group="tables")
def test_nsr_tree(benchmark):
    """Processor time, so that neighbours on the machine count little; the shares of both are measured in one run."""
    torch.manual_seed(0)
    supernet = SuperBlock(SPACE, 1).eval()
    calibration, evaluation, target = torch.randn(3, 4, 24, 16, 24)
    data = BlockData(calibration, evaluation, target)
    subnets = list(SPACE.subnets(1))
    sample = random.Random(0).sample(subnets, ALONE)
    found: dict[str, dict] = {"tree": {}, "alone": {}}
    seconds = {"tree": 0.0, "alone": 0.0}

    def timed(way: str, wanted: list) -> None:
        start = time.process_time()
        found[way] |= {judged.subnet: judged.nsr for judged in judge(supernet, data, wanted)}
        seconds[way] += time.process_time() - start

    def both() -> None:
        for subnet in sample[::2]:
            timed("alone", [subnet])
        timed("tree", subnets)
        for subnet in sample[1::2]:
            timed("alone", [subnet])

    with one_thread():
        timed("alone", sample[:1])  # the first call is slower
        seconds["alone"] = 0.0
        benchmark.pedantic(both, rounds=1)
    assert {subnet: found["tree"][subnet] for subnet in sample} == found["alone"]
    ratio = seconds["alone"] / len(sample) / (seconds["tree"] / len(subnets))
    benchmark.extra_info.update(
        figure=ratio,
        unit="times as fast as one by one",
        limit=LIMIT,
        holds=ratio >= LIMIT,
        tree_ms_a_subnet=1e3 * seconds["tree"] / len(subnets),
        alone_ms_a_subnet=1e3 * seconds["alone"] / len(sample),
    )
