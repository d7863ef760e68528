"""The least time that a device could take for an INT8 table: every map moved once, every product at the peak rate.

Each operator of the walk reads its maps and its weights once and writes its result, a byte a value, and takes the
longer of that at the memory's rate and of its products at the int8 rate. Beside these, each leaf reads its result and
the teacher's map (float32), and each step runs the calibration images twice in float32 (batch norms, then ranges),
of which only the bytes count. A step to layer i (from 1) with a choice is taken once for every prefix before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deploy.compile.weights import Origin
from nas.quant.integer_graph import IntegerGraph, Operator, Weighted, reads
from nas.space import Subnet

BITS = 8
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Peaks:
    """What a device can at most: its memory's rate, and dense int8 multiply-accumulates."""

    bytes_per_s: float
    macs_per_s: float


# Dense int8 operations, two a multiply-accumulate; data sheets print them doubled, with sparsity.
PEAKS = {
    "h100": Peaks(3.35e12, 1979e12 / 2),  # NVIDIA H100 Tensor Core GPU data sheet, SXM: 3.35 TB/s, 3 958 TOPS sparse
    "h200": Peaks(4.8e12, 1979e12 / 2),  # NVIDIA H200 Tensor Core GPU data sheet, SXM: 4.8 TB/s, 3 958 TOPS sparse
}


@dataclass(frozen=True)
class Work:
    """One operator: values that are moved and multiply-accumulates for each image, weights (values) but once."""

    times: int
    values: int
    macs: int
    weights: int


def operator_work(op: Operator, graph: IntegerGraph, times: int) -> Work:
    def values(name: str) -> int:
        height, width, channels = graph.tensors[name].shape
        return height * width * channels

    moved = values(op.name) + sum(values(name) for name in set(reads(op)))
    if isinstance(op, Weighted):
        return Work(times, moved, op.macs(graph.tensors[op.name]), op.weight.size + 4 * op.bias.size)
    return Work(times, moved, 0, 0)


def block_work(origin: Origin, block: int) -> Iterator[Work]:
    """The operators of all the steps of one block's descents; what a step moves does not depend on its prefix."""
    choices, layers = origin.space.choices, origin.space.blocks[block - 1].layers
    for _, graph in origin.graphs([Subnet(block, (choice,) * layers, BITS) for choice in choices]):
        for op in graph.operators:
            depth = int(op.name.split("/")[1])  # b3/0/expand is of the first layer
            yield operator_work(op, graph, len(choices) ** depth)


def block_least_seconds(origin: Origin, block: int, peaks: Peaks, images: int, calibration: int) -> float:
    """The roofline of one block's part of the table."""
    total = 0.0
    for work in block_work(origin, block):
        int8 = (images * work.values + work.weights) / peaks.bytes_per_s
        products = images * work.macs / peaks.macs_per_s
        calibrated = 2 * calibration * work.values * FLOAT / peaks.bytes_per_s
        total += work.times * (max(int8, products) + calibrated)
    return total + _leaves(origin, block) * images * (1 + FLOAT) / peaks.bytes_per_s


def _leaves(origin: Origin, block: int) -> int:
    """Values of the block's last map, over all its subnets."""
    subnet = next(origin.space.subnets(block, BITS))
    ((_, graph),) = origin.graphs([subnet])
    height, width, channels = graph.tensors[graph.output].shape
    return height * width * channels * len(origin.space.choices) ** len(subnet.choices)
