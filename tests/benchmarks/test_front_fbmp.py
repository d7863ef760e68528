"""The whole exact front of Table I with few-bit mixed precision, from tables, and what DNA's traversal and brute
force take where they end.

The tables are made up: size is the space's own; NSR falls with the fourth root of the multiply-accumulates, with 2 %
of noise a subnet and a term a bit width as docs/compiler.md measures it; latency follows multiply-accumulates and the
maps' sizes, is the same for all bits (they run as INT8), and has 0.5 % of measuring noise. More noise makes smaller
fronts: the demo's own NSRs scatter by 4 to 8 % about a power of their multiply-accumulates.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from nas.estimate import Estimate
from nas.search.brute_force import front_costs, k_best_by_all
from nas.search.candidates import Candidates, candidates
from nas.search.front import Front, exact_front, front
from nas.search.k_best import k_best
from nas.search.traversal import traverse
from nas.space import Boundary, SearchSpace, Subnet
from nas.table import Table, size_table

FRONT_LIMIT_S = 0.2
INTERACTING_LIMIT_S = 1.0
INTERACTION = 0.05  # standard deviation of a boundary's terms, as a share of the mean latency of the block before
SIZE = (360, 480)
QUANTIZATION_NSR = {8: 0.0014, 6: 0.0035, 4: 0.05}
NSR_NOISE, BITS_NOISE, LATENCY_NOISE = 0.02, 0.1, 0.005
VISITS = 1_000_000
T = TypeVar("T")


def seconds(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def work(space: SearchSpace, subnet: Subnet) -> tuple[float, float]:
    """Multiply-accumulates, and elements of the maps that are written."""
    stride = 2 * math.prod(block.stride for block in space.blocks[: subnet.block - 1])
    macs = elements = 0.0
    for i, choice in enumerate(subnet.choices):
        channels_in, channels_out, step, _ = space.layer_geometry(subnet.block, i)
        before = SIZE[0] * SIZE[1] / stride**2
        stride *= step
        after = SIZE[0] * SIZE[1] / stride**2
        width = channels_in * choice.expansion
        macs += before * channels_in * width + after * width * (choice.kernel**2 + channels_out)
        elements += before * width + after * (width + channels_out)
    return macs, elements


def made_up_tables(space: SearchSpace, seed: int) -> list[Table]:
    """NSR, size and latency of every subnet of the space."""
    rng = np.random.default_rng(seed)
    float_nsr: dict[tuple[object, ...], float] = {}
    nsr, latency = {}, {}
    for subnet in space.all_subnets():
        macs, elements = work(space, subnet)
        path = (subnet.block, subnet.choices)
        if path not in float_nsr:
            float_nsr[path] = 0.6 * (macs / 1e8) ** -0.25 * math.exp(NSR_NOISE * rng.normal())
        noise = QUANTIZATION_NSR[subnet.bits] * math.exp(BITS_NOISE * rng.normal())
        nsr[subnet] = Estimate.exact(float_nsr[path] + noise)
        latency[subnet] = Estimate.exact((3e-5 * macs + 2e-4 * elements) * math.exp(LATENCY_NOISE * rng.normal()))
    origin = {"space": space.digest}
    return [Table("nsr", "ratio", nsr, origin), size_table(space), Table("latency", "us", latency, origin)]


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    table1 = SearchSpace.load(Path(__file__).parents[2] / "nas/spaces/table1.toml")
    return replace(table1, bits=(4, 6, 8))


@pytest.mark.benchmark(group="search", timer=time.process_time)
def test_front_fbmp(benchmark, space):
    """From three tables in memory to every Pareto-optimal architecture; processor time, so that neighbours do not
    count, of all threads together; the median of 9."""
    tables = made_up_tables(space, seed=0)
    assert sum(len(table.entries) for table in tables) == 3 * 9_738
    found: Front = benchmark.pedantic(exact_front, (space, tables), rounds=9, warmup_rounds=1)
    of = candidates(space, tables)
    limits = dict(zip(of.objectives[1:], np.quantile(found.costs[:, 1:], 0.4, axis=0).tolist(), strict=True))
    wall_s, _ = seconds(lambda: exact_front(space, tables))
    k_seconds, best = seconds(lambda: k_best(of, limits, 5))
    traversal_s, traversed = seconds(lambda: traverse(of, limits, VISITS))
    pruned_s, pruned = seconds(lambda: traverse(found.pruned, limits, VISITS))
    median = benchmark.stats.stats.median
    benchmark.extra_info.update(
        figure=median,
        unit="CPU s for the front of 7.4e16 architectures over NSR, size and latency",
        limit=FRONT_LIMIT_S,
        holds=median <= FRONT_LIMIT_S,
        architectures=float(of.count),
        front=len(found),
        wall_s=wall_s,
        block_fronts=[len(block) for block in found.pruned.subnets],
        five_best_under_two_limits_s=k_seconds,
        traversal={"s": traversal_s, "visits": traversed.visits, "ended": traversed.complete},
        traversal_of_block_fronts={"s": pruned_s, "visits": pruned.visits, "ended": pruned.complete},
    )
    assert best[0].architecture == found.best(limits)


@pytest.mark.benchmark(group="search", timer=time.process_time)
def test_front_with_interactions(benchmark, space):
    """As `test_front_fbmp`, where every pair of choices at every block boundary has a latency of its own."""
    nsr, size, latency = made_up_tables(space, seed=0)
    rng, terms = np.random.default_rng(0), {}
    for block in range(1, len(space.blocks)):
        mean = np.mean([entry.value for subnet, entry in latency.entries.items() if subnet.block == block])
        for last, first in itertools.product(space.choices, repeat=2):
            terms[Boundary(block, last, first)] = Estimate.exact(float(INTERACTION * mean * rng.normal()))
    tables = [nsr, size, replace(latency, interactions=terms)]
    found: Front = benchmark.pedantic(exact_front, (space, tables), rounds=5, warmup_rounds=1)
    plain_s, plain = seconds(lambda: exact_front(space, [nsr, size, latency]))
    of = candidates(space, tables)
    limits = dict(zip(of.objectives[1:], np.quantile(found.costs[:, 1:], 0.4, axis=0).tolist(), strict=True))
    assert k_best(of, limits, 1)[0].architecture == found.best(limits)
    median = benchmark.stats.stats.median
    benchmark.extra_info.update(
        figure=median,
        unit=f"CPU s for the same front with {len(terms)} interactions of neighbouring blocks",
        limit=INTERACTING_LIMIT_S,
        holds=median <= INTERACTING_LIMIT_S,
        front=len(found),
        without={"s": plain_s, "front": len(plain)},
        block_fronts=[len(block) for block in found.pruned.subnets],
    )


def first_subnets(of: Candidates, each: int) -> Candidates:
    """Of each block so many, evenly spread."""
    return of.subset([np.unique(np.linspace(0, len(c) - 1, each).astype(np.int64)) for c in of.costs])


@pytest.mark.benchmark(group="search")
def test_front_beside_its_rivals(benchmark, space):
    """One limit, on sub-spaces of Table I in which brute force and DNA's traversal end; ratio: traversal / front."""
    of = candidates(space, made_up_tables(space, seed=1))
    small, large = first_subnets(of, 4), first_subnets(of, 12)
    brute_s, everything = seconds(lambda: front_costs(small))
    assert np.array_equal(front(small).costs, everything)
    limits = {"size": float(np.quantile(front(large).costs[:, 1], 0.4))}
    all_s, expected = seconds(lambda: k_best_by_all(large, limits, 1))
    traversal_s, traversed = seconds(lambda: traverse(large, limits))
    found: Front = benchmark.pedantic(front, (large,), rounds=5, warmup_rounds=1)
    assert traversed.best is not None
    assert traversed.best.costs[0] == expected[0].costs[0] == k_best(large, limits, 1)[0].costs[0]
    assert found.best(limits) == expected[0].architecture
    median = benchmark.stats.stats.median
    benchmark.extra_info.update(
        figure=median,
        unit=f"s for the front of {large.count} architectures",
        limit=traversal_s,
        holds=median <= traversal_s,
        ratio=traversal_s / median,
        against="DNA's traversal for one limit",
        traversal={"s": traversal_s, "visits": traversed.visits},
        brute_force_of_one_limit_s=all_s,
        brute_force_of_a_front={"architectures": small.count, "s": brute_s},
    )
