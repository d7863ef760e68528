"""A device on which neighbouring layers do something to each other that no isolated block shows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from deploy.latency.agreement import MeasuredNetwork, stratified
from deploy.latency.estimates import Z95
from deploy.latency.pairs import BlockPair
from nas.estimate import Estimate
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table

DEMO = SearchSpace.load(Path(__file__).parents[3] / "nas/spaces/demo.toml")
TABLE1 = SearchSpace.load(Path(__file__).parents[3] / "nas/spaces/table1.toml")
Plant = Callable[["PlantedDevice", Subnet | None, Subnet | None], float]
"""What two neighbours take beyond both: of the stem and block 1 where there is none before, of the head likewise."""
CYCLES = {  # of an NPU's cycle model: thousands of one MBConv layer with 64 channels on 24 x 32, by dilation
    1: {"k3e3": 223, "k3e6": 282, "k5e3": 260, "k5e6": 377, "k7e3": 326, "k7e6": 505},
    2: {"k3e3": 260, "k3e6": 377, "k5e3": 409, "k5e6": 1080, "k7e3": 649, "k7e6": 1484},
    4: {"k3e3": 400, "k3e6": 1080, "k5e3": 1109, "k5e6": 2035, "k7e3": 1174, "k7e6": 2165},
}
STEM_US, HEAD_US, GRAPH_US = 900.0, 1500.0, 150.0


@dataclass(eq=False)
class PlantedDevice:
    """Latencies of blocks, pairs and full networks, microseconds.

    Attributes:
        plant: what neighbours do to each other.
        noise: of a measurement, as a share.
        odd: of a subnet, as a share, that no feature explains.
        board_s: time taken so far.
    """

    space: SearchSpace
    plant: Plant
    seed: int = 0
    noise: float = 0.002
    odd: float = 0.02
    board_s: float = 0.0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.true_us = {
            s: self._layers_us(s) * float(1 + self.odd * self.rng.normal()) for s in self.space.all_subnets()
        }

    def _layers_us(self, subnet: Subnet) -> float:
        total, area = 0.0, 4.0  # of a map 48 x 64, as the stem leaves it
        for block in self.space.blocks[: subnet.block - 1]:
            area /= block.stride**2
        for i, choice in enumerate(subnet.choices):
            _, channels, stride, dilation = self.space.layer_geometry(subnet.block, i)
            area /= stride**2
            total += CYCLES[dilation][str(choice)] * area * channels / 64
        return total

    def mean_us(self, block: int) -> float:
        return float(np.mean([us for s, us in self.true_us.items() if s.block == block]))

    def network_us(self, a: Architecture) -> float:
        ends = [None, *a.subnets, None]
        between = sum(self.plant(self, *pair) for pair in pairwise(ends))
        return GRAPH_US + STEM_US + HEAD_US + sum(self.true_us[s] for s in a.subnets) + between

    def pair_us(self, pair: BlockPair) -> float:
        outside = 0.0 if len(pair.subnets) == 2 else STEM_US if pair.before is None else HEAD_US
        planted = self.plant(self, pair.before, pair.after)
        return GRAPH_US + outside + sum(self.true_us[s] for s in pair.subnets) + planted

    def _measured(self, us: float) -> float:
        self.board_s += self.seconds(us)
        return us * float(1 + self.noise * self.rng.normal())

    @staticmethod
    def seconds(us: float) -> float:
        return 0.06 + 40e-6 * us

    def table(self) -> Table:
        """Of every block, isolated."""
        entries = {}
        for s, us in self.true_us.items():
            value, error = self._measured(us), self.noise * us
            entries[s] = Estimate(value, error, value - Z95 * error, value + Z95 * error, 40, "measured")
        return Table("latency", "us", entries, {"space": self.space.digest})

    def pairs(self, pairs: Iterable[BlockPair]) -> Mapping[BlockPair, Estimate]:
        found = {}
        for pair in pairs:
            value = self._measured(self.pair_us(pair))
            error = self.noise * value
            found[pair] = Estimate(value, error, value - Z95 * error, value + Z95 * error, 40, "measured")
        return found

    def networks(self, table: Table, models: int) -> list[MeasuredNetwork]:
        """As an agreement measures them, with the table's sums."""
        found = []
        for a in stratified(self.space, table, models, random.Random(self.seed)):
            halves = self._measured(self.network_us(a)), self._measured(self.network_us(a))
            found.append(MeasuredNetwork(a, table.total(a), sum(halves) / 2, halves))
        return found


def nothing(device: PlantedDevice, before: Subnet | None, after: Subnet | None) -> float:
    return 0.0


def retiled_stem(device: PlantedDevice, before: Subnet | None, after: Subnet | None) -> float:
    """Expansion 6 in the first layer of block 1 costs the stem three fifths of a mean block 1 more."""
    if before is None and after is not None and after.choices[0].expansion == 6:
        return 0.6 * device.mean_us(1)
    return 0.0


def slower_first_block(device: PlantedDevice, before: Subnet | None, after: Subnet | None) -> float:
    """The same as a share of the block's own time."""
    if before is None and after is not None and after.choices[0].expansion == 6:
        return 0.6 * device.true_us[after]
    return 0.0


def wide_meets_wide(device: PlantedDevice, before: Subnet | None, after: Subnet | None) -> float:
    """Between blocks 2 and 3, expansion 6 on both sides spills what lies between them."""
    if before and after and before.block == 2 and before.choices[-1].expansion == after.choices[0].expansion == 6:
        return 0.6 * device.mean_us(3)
    return 0.0
