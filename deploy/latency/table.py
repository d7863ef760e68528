"""The latency table: the board's latency of every subnet, isolated or in context.

Bits that execute as INT8 have INT8's entry, the same one: no latency is credited to bits that ran as INT8, nor to the
noise between two measurements of one computation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from deploy.targets.precision import executed_as
from hil.errors import Incomparable, ModelError
from hil.measure import pooled
from hil.measurement import Measurement
from hil.stats import LatencySummary, summarize
from nas.estimate import Estimate
from nas.space import SearchSpace, Subnet
from nas.table import Table

CPU_OPERATORS = "cpu-operators"
"""Name of the table of operators that the delegate left to the CPU, in a run whose board has a delegate."""


def summaries(measurements: Sequence[Measurement]) -> dict[str, LatencySummary]:
    """For each model's name the summary of all its rounds.

    Raises `ModelError` naming the first that failed, `Incomparable` for a name of two files and unlike conditions.
    """
    failed = [m for m in measurements if m.failure is not None]
    if failed:
        first = failed[0]
        assert first.failure is not None  # noqa: S101 (for the type checker)
        raise ModelError(
            f"{len({m.model for m in failed})} of {len({m.model for m in measurements})} models failed "
            f"on the board; the first is {first.model}: {first.failure.reason}"
        )
    pooled(measurements)  # refuses unlike conditions
    named: dict[str, list[Measurement]] = {}
    for m in measurements:
        named.setdefault(m.model, []).append(m)
    found = {}
    for name, rounds in named.items():
        pool, *others = pooled(rounds).values()
        if others:
            raise Incomparable(f"{name}: {1 + len(others)} files were measured under this name: give each its own")
        found[name] = summarize(pool)
    return found


def measured_as(space: SearchSpace, subnet: Subnet) -> Subnet:
    """The subnet whose measured latency is that of `subnet`: the same choices at the widest width that runs alike."""
    width = executed_as(subnet.bits)
    return replace(subnet, bits=max(bits for bits in space.bits if executed_as(bits) == width))


def latency_table(space: SearchSpace, measured: Mapping[Subnet, Estimate], provenance: Mapping[str, object]) -> Table:
    """Every subnet's entry, from those of the subnets that stand for all widths that execute alike (`measured_as`)."""
    entries = {subnet: measured[measured_as(space, subnet)] for subnet in space.all_subnets()}
    return Table("latency", "us", entries, {"space": space.digest, **provenance})


def cpu_operators_table(
    space: SearchSpace, measurements: Sequence[Measurement], provenance: Mapping[str, object]
) -> Table:
    """How many operators of each subnet the configured delegate left to the CPU; the most of any round."""
    left: dict[str, int] = {}
    for m in measurements:
        left[m.model] = max(left.get(m.model, 0), len(m.cpu_operators))
    entries = {subnet: Estimate.exact(left[str(subnet)]) for subnet in space.all_subnets()}
    return Table("cpu_operators", "operators", entries, {"space": space.digest, **provenance})


def halves(measurements: Sequence[Measurement]) -> dict[str, tuple[float, float]]:
    """For each model's name the medians of its even and odd rounds, or runs where there is one round, microseconds."""
    rounds: dict[str, list[tuple[float, ...]]] = {}
    for m in sorted(measurements, key=lambda m: m.round):
        rounds.setdefault(m.model, []).append(m.latencies_us)
    pairs = {
        name: (np.concatenate(us[::2]), np.concatenate(us[1::2])) if len(us) > 1 else (us[0][::2], us[0][1::2])
        for name, us in rounds.items()
    }
    return {name: (float(np.median(first)), float(np.median(second))) for name, (first, second) in pairs.items()}
