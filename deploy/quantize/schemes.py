"""Which scheme: those that were tried are compared by metric, latency or expected placement, and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records.base import OMITTED, Record
from hil.errors import CheckFailed, UsageError
from nas.estimate import Estimate
from nas.settings import STRICT

AS_FAST = 1.03  # times the fastest: no faster, as far as rounds of a board agree
AS_PLACED = 0.02  # of the multiply-accumulates: no more of them off the fast place


@dataclass(frozen=True)
class TriedScheme:
    """What was found of one.

    Attributes:
        noise_db: of the outputs, the worst of several, by this machine's runtime; None: they are indices.
        size_bytes: of the file.
        off_share: of the multiply-accumulates, that the target is expected to run off its fast place; None: no target.
        metric: of the file on labelled data, in percent; None without any.
        change: that less the float network's on the same images, points.
        latency_us: on the board; None without one.
        failure: why there is no such file, or why it does not run.
    """

    option: str
    noise_db: float | None = field(default=None, metadata=OMITTED)
    size_bytes: int | None = field(default=None, metadata=OMITTED)
    off_share: float | None = field(default=None, metadata=OMITTED)
    metric: Estimate | None = field(default=None, metadata=OMITTED)
    change: Estimate | None = field(default=None, metadata=OMITTED)
    latency_us: Estimate | None = field(default=None, metadata=OMITTED)
    failure: str | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SchemeTrials(Record):
    """schemes.json: the scheme that was chosen, and all that were tried.

    Attributes:
        model: the float network's name.
        data: what it was calibrated on.
        chosen: the option of one of `tried`.
        labelled: what the metric is of; None: there is none.
        float_metric: of the float network, in percent.
        metric_drop: how much less than that the chosen one's may be, points; None: nobody asked.
        in_float: the layers of the chosen one that stay in float.
        target: whose rules placed the operators.
        board: that measured the latency.
    """

    model: str
    data: str
    chosen: str
    tried: tuple[TriedScheme, ...]
    labelled: str | None = field(default=None, metadata=OMITTED)
    float_metric: Estimate | None = field(default=None, metadata=OMITTED)
    metric_drop: float | None = field(default=None, metadata=OMITTED)
    in_float: tuple[str, ...] = field(default=(), metadata=OMITTED)
    target: str | None = field(default=None, metadata=OMITTED)
    board: str | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "schemes.json"
    COMMAND: ClassVar[str] = "quantize --scheme auto"


def choose(tried: Sequence[TriedScheme], metric_drop: float | None = None) -> TriedScheme:
    """The fastest whose metric is at most `metric_drop` points below the float network's; of those as fast the best.

    The fastest by the board where it measured, else by the target's rules. The best has the least noise, among those
    whose metric images cannot tell from the highest. Raises `CheckFailed` where none is left, `UsageError` for a drop
    without a metric.
    """
    able = [one for one in tried if one.failure is None]
    if not able:
        raise CheckFailed("no scheme is left: " + "; ".join(f"{one.option}: {one.failure}" for one in tried))
    if metric_drop is not None:
        able = _within(able, metric_drop)
    return min(_as_good(_fastest(able)), key=lambda one: math.inf if one.noise_db is None else one.noise_db)


def _within(able: Sequence[TriedScheme], drop: float) -> list[TriedScheme]:
    changes = [(one, one.change.value) for one in able if one.change is not None]
    if not changes:
        raise UsageError(f"--metric-drop {drop:g}: there is no metric without labelled data; give --labelled SPEC")
    within = [one for one, change in changes if change >= -drop]
    if not within:
        best, change = max(changes, key=lambda entry: entry[1])
        raise CheckFailed(
            f"no scheme is within {drop:g} points of the float network: '{best.option}' comes nearest, {-change:.2f} "
            "below it; allow more, or keep layers in float (--keep-float N)"
        )
    return within


def _as_good(able: Sequence[TriedScheme]) -> list[TriedScheme]:
    """Those whose interval reaches the highest metric, or all without one."""
    changes = [(one, one.change) for one in able if one.change is not None]
    highest = max((change.value for _, change in changes), default=0.0)
    return [one for one, change in changes if change.high >= highest] or list(able)


def _fastest(able: Sequence[TriedScheme]) -> list[TriedScheme]:
    measured = {one.option: one.latency_us.value for one in able if one.latency_us is not None}
    if measured:
        most = AS_FAST * min(measured.values())
        return [one for one in able if measured.get(one.option, math.inf) <= most]
    least = min(one.off_share or 0.0 for one in able)
    return [one for one in able if (one.off_share or 0.0) <= least + AS_PLACED]
