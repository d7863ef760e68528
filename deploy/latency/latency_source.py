"""Where active measuring gets latencies from: a board, or a recorded table; and what it got so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deploy.latency.agreement import MeasuredNetwork
from nas.estimate import Estimate
from nas.space import Architecture, Subnet


class LatencySource(Protocol):
    """Measures on request, with the seconds of board time that each measurement took."""

    def blocks(self, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, Estimate, float]]: ...

    def networks(self, architectures: Sequence[Architecture]) -> Iterator[tuple[MeasuredNetwork, float]]: ...

    def measurable(self, architectures: Sequence[Architecture]) -> Sequence[Architecture]:
        """The full networks that may be requested, where these are wanted: all on a board, others in a record."""
        ...

    def seconds(self, latency_us: float) -> float:
        """About how much board time a measurement of this latency takes."""
        ...


@dataclass(frozen=True)
class Observations:
    """What was measured so far.

    Attributes:
        blocks: latencies of subnets, microseconds.
        networks: full networks.
        seconds: board time of all.
    """

    blocks: Mapping[Subnet, Estimate] = field(default_factory=dict)
    networks: tuple[MeasuredNetwork, ...] = ()
    seconds: float = 0.0

    def extended(
        self, source: LatencySource, blocks: Sequence[Subnet], networks: Sequence[Architecture]
    ) -> Observations:
        """With these, measured now."""
        measured, samples, seconds = dict(self.blocks), list(self.networks), self.seconds
        for subnet, estimate, took_s in source.blocks(blocks):
            measured[subnet] = estimate
            seconds += took_s
        for sample, took_s in source.networks(networks):
            samples.append(sample)
            seconds += took_s
        return Observations(measured, tuple(samples), seconds)
