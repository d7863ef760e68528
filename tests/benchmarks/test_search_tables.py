"""The tables' speed, the same numbers each time.

nsr_tree: a block's NSR table by the tree of prefixes against one subnet after the other.
pointwise_products: Table I's 1 x 1 convolutions as int8 matrix products against floats.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import torch

from deploy.compile.weights import Origin
from nas.networks.blocks import SuperBlock
from nas.nsr import BATCH, BlockData, evaluate
from nas.quant import products, simulate
from nas.space import Block, SearchSpace, Subnet
from nas.training.threads import one_thread

LIMIT = 2.6  # times as fast; counting layers, 4 * 6**4 / (6 + 6**2 + 6**3 + 6**4) = 3.34
ALONE = 48  # subnets that are judged one by one; all 1 296 would take minutes
PRODUCTS_LIMIT = 1.5  # times as fast; a processor without VNNI has no products and says so
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
        found[way] |= {judged.subnet: judged.nsr for judged in evaluate(supernet, data, wanted)}
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


@pytest.mark.benchmark(group="tables")
def test_pointwise_products(benchmark):
    """Processor time of one layer of each block at 180x240 with each choice, both ways in turn."""
    cpu = torch.device("cpu")
    if not products.exact_on(cpu):
        pytest.skip("this processor's int8 products are not exact, or it has none: floats are used")
    origin = Origin(SearchSpace.load(Path(__file__).parents[2] / "nas/spaces/table1.toml"), (180, 240))
    calls = []
    for number, block in enumerate(origin.space.blocks, start=1):
        wanted = [Subnet(number, (choice,) * block.layers, 8) for choice in origin.space.choices]
        for _, graph in origin.graphs(wanted):
            for op in graph.operators:
                if products.is_product(op, graph.tensors[op.x].shape[2]):
                    height, width, channels = graph.tensors[op.x].shape
                    q = torch.randint(-128, 128, (BATCH, channels, height, width)).float()
                    calls.append((op, q, graph.tensors[op.x]))
    seconds = {"products": 0.0, "floats": 0.0}

    def both() -> None:
        for op, q, x in calls:
            start = time.process_time()
            found = simulate.accumulate(op, q, x)
            between = time.process_time()
            dtype = simulate._exact_dtype(op, simulate._reach(op, x), cpu)
            slow = simulate.accumulate_in_float(op, q, x, dtype)
            seconds["floats"] += time.process_time() - between
            seconds["products"] += between - start
            assert found.dtype == torch.int32 and torch.equal(found.double(), slow.double())

    with one_thread():
        both()  # the first calls are slower
        seconds.update(products=0.0, floats=0.0)
        benchmark.pedantic(both, rounds=3)
    ratio = seconds["floats"] / seconds["products"]
    benchmark.extra_info.update(
        figure=ratio,
        unit="times as fast as in floats",
        limit=PRODUCTS_LIMIT,
        holds=ratio >= PRODUCTS_LIMIT,
        layers=len(calls),
    )
