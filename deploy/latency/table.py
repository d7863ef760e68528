"""The latency table: what the board measured for every subnet, alone.

The interval is that of the median over all rounds' samples. Bits that ran as INT8 have INT8's time because
that is what was measured: nothing is credited to bits here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hil.errors import ModelError
from hil.measure import pooled
from hil.measurement import Measurement
from hil.stats import LatencySummary, summarize
from nas.space import SearchSpace, Subnet
from nas.table import Entry, Table

CPU_OPERATORS = "cpu-operators"
"""The table's name, in a run whose board has a delegate."""


def summaries(measurements: Sequence[Measurement]) -> dict[str, LatencySummary]:
    """For each model's name the summary of all its rounds; `ModelError` naming the first that failed."""
    failed = [m for m in measurements if m.failure is not None]
    if failed:
        first = failed[0]
        assert first.failure is not None  # noqa: S101 (for the type checker)
        raise ModelError(
            f"{len({m.model for m in failed})} of {len({m.model for m in measurements})} models failed "
            f"on the board; the first is {first.model}: {first.failure.reason}"
        )
    pools = pooled(measurements)
    return {m.model: summarize(pools[m.model_sha256]) for m in measurements}


def latency_table(
    space: SearchSpace, measured: Mapping[str, LatencySummary], provenance: Mapping[str, object]
) -> Table:
    """The table of the isolated subnets' medians; every subnet of the space must have been measured."""
    entries: dict[Subnet, Entry] = {}
    for subnet in space.all_subnets():
        s = measured[str(subnet)]
        entries[subnet] = Entry(s.median_us, s.ci95_us[0], s.ci95_us[1], s.n, "isolated")
    return Table("latency", "us", entries, {"space": space.digest, **provenance})


def cpu_operators_table(
    space: SearchSpace, measurements: Sequence[Measurement], provenance: Mapping[str, object]
) -> Table:
    """How many operators of each subnet the configured delegate left to the CPU; the most of any round."""
    left: dict[str, int] = {}
    for m in measurements:
        left[m.model] = max(left.get(m.model, 0), len(m.cpu_operators))
    entries = {subnet: Entry.exact(left[str(subnet)]) for subnet in space.all_subnets()}
    return Table("cpu_operators", "operators", entries, {"space": space.digest, **provenance})
