"""A device whose latencies follow from a rule that the models do not know, as a bench and as a record."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.estimates import Z95
from deploy.studies.latency.record import Recorded, Row
from nas.estimate import Estimate
from nas.space import Architecture, Block, SearchSpace, Subnet
from nas.table import Table

SPACE = SearchSpace(
    "made-up",
    8,
    8,
    (Block(2, 16, 3, 1), Block(1, 24, 3, 1, 2), Block(2, 32, 2, 1)),
    kernels=(3, 5, 7),
    expansions=(3, 6),
)
SIZE = (64, 96)
COST = {3: 1.0, 5: 1.6, 7: 6.0}


@dataclass(eq=False)
class Device:
    """A latency source.

    Attributes:
        subnet: standard deviation of what no feature explains, as a share of a block's latency.
        noise: of a measurement, as a share.
        boundary_us: added where a 7x7 follows a wide layer in another block.
        asked: everything that was measured, in order.
        rng: of all randomness.
    """

    subnet: float = 0.005
    noise: float = 0.002
    boundary_us: float = 0.0
    asked: list[str] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def __post_init__(self) -> None:
        self.true_us = {s: self._rule(s) * float(1 + self.subnet * self.rng.normal()) for s in SPACE.all_subnets()}

    @staticmethod
    def _rule(subnet: Subnet) -> float:
        total, rows = 20.0, 1.0 if subnet.block == 1 else 0.25
        for i, choice in enumerate(subnet.choices):
            channels, out, stride, dilation = SPACE.layer_geometry(subnet.block, i)
            rows /= stride**2
            inside = channels * choice.expansion
            total += (
                rows * inside * (8.0 * COST[choice.kernel] * (1.5 if dilation > 1 else 1.0) + 0.3 * (channels + out))
            )
        return total

    def whole_us(self, architecture: Architecture) -> float:
        total = 500.0 + sum(self.true_us[s] for s in architecture.subnets)
        for before, after in zip(architecture.subnets, architecture.subnets[1:], strict=False):
            if before.choices[-1].expansion == 6 and after.choices[0].kernel == 7:
                total += self.boundary_us
        return total

    def _noisy(self, us: float) -> float:
        return us * float(1 + self.noise * self.rng.normal())

    def blocks(self, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, Estimate, float]]:
        for s in subnets:
            self.asked.append(str(s))
            yield s, self._measured(s), self.seconds(self.true_us[s])

    def _measured(self, s: Subnet) -> Estimate:
        value, error = self._noisy(self.true_us[s]), self.noise * self.true_us[s]
        return Estimate(value, error, value - Z95 * error, value + Z95 * error, 20, "measured")

    def networks(self, architectures: Sequence[Architecture]) -> Iterator[tuple[MeasuredNetwork, float]]:
        for a in architectures:
            self.asked.append(str(a))
            yield self.sample(a), self.seconds(self.whole_us(a))

    def measurable(self, architectures: Sequence[Architecture]) -> Sequence[Architecture]:
        return architectures

    def seconds(self, latency_us: float) -> float:
        return 0.02 + 40e-6 * latency_us

    def sample(self, a: Architecture) -> MeasuredNetwork:
        halves = self._noisy(self.whole_us(a)), self._noisy(self.whole_us(a))
        return MeasuredNetwork(a, sum(self.true_us[s] for s in a.subnets), sum(halves) / 2, halves)


def nsr_table() -> Table:
    """Larger kernels and expansions are more accurate, with some luck."""
    rng = np.random.default_rng(2)
    worth = {3: 0.030, 5: 0.022, 7: 0.018}
    entries = {
        s: Estimate.exact(
            sum(worth[c.kernel] * (1.4 if c.expansion == 3 else 1) for c in s.choices) * rng.uniform(0.9, 1.1)
        )
        for s in SPACE.all_subnets()
    }
    return Table("nsr", "ratio", entries, {"space": SPACE.digest})


def architectures(count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return list(dict.fromkeys(SPACE.sample(rng) for _ in range(2 * count)))[:count]


def recorded(device: Device, held_out: int = 30, pool: int = 30) -> Recorded:
    """Everything that the device can be asked, measured."""
    nsr = nsr_table()
    rows = []
    for s, m, took_s in device.blocks(list(SPACE.all_subnets())):
        assert m.std_error is not None
        low, high = m.value - 2 * m.std_error, m.value + 2 * m.std_error
        rows.append(Row(str(s), "block", m.value, low, high, m.value, m.value, 20, took_s, nsr[s], 1.0))
    for i, a in enumerate(architectures(held_out + pool)):
        sample = device.sample(a)
        y, (first, second) = sample.measured_us, sample.halves_us
        role = "held-out" if i < held_out else "pool"
        rows.append(Row(str(a), role, y, y, y, first, second, 40, device.seconds(y), nsr.total(a), 3.0))
    return Recorded(tuple(rows), SPACE, SIZE, "channel int8", {"board": "made up"})
