"""Latencies as shares of one model's that was measured beside them: what budgets of latency are kept by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hil.job import MeasureProtocol
from hil.measurement import Measurement
from hil.regression import FEWEST_ROUNDS, latency_ratio
from nas.estimate import Estimate

MORE_ROUNDS = 4
"""How many times as many rounds as at first are measured at most, while an interval contains a limit."""


def enough_rounds(protocol: MeasureProtocol) -> MeasureProtocol:
    """The protocol with as many rounds as the interval of a share needs, if it has fewer."""
    return replace(protocol, rounds=max(protocol.rounds, FEWEST_ROUNDS))


def latency_shares(measurements: Sequence[Measurement], base: str, *, seed: int = 0) -> Mapping[str, Estimate]:
    """Each model's latency as a share of `base`'s, round by round, with its 95 % interval (`hil.regression`).

    What models of a round share, heat and other processes, cancels. No measurement may have failed; raises
    Incomparable for too few rounds.
    """
    rounds: dict[str, list[tuple[float, ...]]] = {}
    for m in sorted(measurements, key=lambda m: m.round):
        rounds.setdefault(m.model, []).append(m.latencies_us)
    found = {}
    for name, head in rounds.items():
        ratio, (low, high) = latency_ratio(rounds[base], head, interleaved=True, seed=seed)
        found[name] = Estimate(ratio, None, low, high, len(head), "measured")
    return found
