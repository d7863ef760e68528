"""Which scheme: those that there are are tried, and judged by noise, metric, size, expected placement and latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar

from deploy.compile.scheme import QuantizationScheme
from deploy.run.records.base import OMITTED, Record
from hil.errors import CheckFailed, UsageError
from nas.estimate import Estimate
from nas.quant.scheme import DEFAULT, Scheme
from nas.settings import STRICT

AS_FAST = 1.03  # times the fastest: no faster, as far as rounds of a board agree
AS_PLACED = 0.02  # of the multiply-accumulates: no more of them off the fast place
SCHEMES = (QuantizationScheme("channel"), QuantizationScheme("tensor"), QuantizationScheme("tensor", "uint8"))


@dataclass(frozen=True)
class SchemeOption:
    """A scheme, and what is done to the float network before and to the biases after it was rounded."""

    scheme: QuantizationScheme
    equalize: bool = False
    bias_correction: bool = False

    def __str__(self) -> str:
        done = [name for name, on in (("equalized", self.equalize), ("biases corrected", self.bias_correction)) if on]
        return ", ".join((str(self.scheme), *done))

    def options(self, base: Scheme = DEFAULT) -> Scheme:
        """The experiment's other choices with these."""
        return replace(base, equalize=self.equalize, bias_correction=self.bias_correction)


OPTIONS = tuple(SchemeOption(*chosen) for chosen in product(SCHEMES, (False, True), (False, True)))
"""All that `auto` tries."""


@dataclass(frozen=True)
class TriedScheme:
    """What was found of one.

    Attributes:
        noise_db: of the outputs, the worst of several.
        size_bytes: of the file.
        off_share: of the multiply-accumulates, that the target is expected to run off its fast place; None: no target.
        metric: of the file on labelled data, in percent; None without any.
        latency_us: on the board; None without one.
        failure: why there is no such file, or why it does not run.
    """

    option: str
    noise_db: float | None = field(default=None, metadata=OMITTED)
    size_bytes: int | None = field(default=None, metadata=OMITTED)
    off_share: float | None = field(default=None, metadata=OMITTED)
    metric: Estimate | None = field(default=None, metadata=OMITTED)
    latency_us: Estimate | None = field(default=None, metadata=OMITTED)
    failure: str | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SchemesRecord(Record):
    """schemes.json: the one that was chosen, and all that were tried.

    Attributes:
        model: the float network's file.
        metric_drop: how much less than the best one's metric the chosen one's may be, points; None: nobody asked.
        target: whose rules placed the operators; `board`: that was measured on.
    """

    model: str
    data: str
    chosen: str
    tried: tuple[TriedScheme, ...]
    metric_drop: float | None = None
    target: str | None = None
    board: str | None = None

    FILE: ClassVar[str] = "schemes.json"
    COMMAND: ClassVar[str] = "quantize"


def choose(tried: Sequence[TriedScheme], metric_drop: float | None = None) -> TriedScheme:
    """The fastest within the metric's drop; of those that are as fast the most exact.

    The fastest by the board where it measured, else by the target's rules. Without labelled data nothing says how much
    noise is too much: then speed decides, and noise among the equally fast. Raises `CheckFailed` where none is left,
    `UsageError` for a drop without a metric.
    """
    able = [one for one in tried if one.failure is None]
    if not able:
        raise CheckFailed("no scheme is left: " + "; ".join(f"{one.option}: {one.failure}" for one in tried))
    if metric_drop is not None:
        able = _within(able, metric_drop)
    return min(_fastest(able), key=lambda one: (-(one.metric.value if one.metric else 0.0), _noise(one)))


def _within(able: Sequence[TriedScheme], metric_drop: float) -> list[TriedScheme]:
    metrics = {one.option: one.metric.value for one in able if one.metric is not None}
    if not metrics:
        raise UsageError(f"--metric-drop {metric_drop:g}: there is no metric without labelled data; leave it out")
    least = max(metrics.values()) - metric_drop
    return [one for one in able if metrics.get(one.option, -math.inf) >= least]


def _fastest(able: Sequence[TriedScheme]) -> list[TriedScheme]:
    measured = {one.option: one.latency_us.value for one in able if one.latency_us is not None}
    if measured:
        most = AS_FAST * min(measured.values())
        return [one for one in able if measured.get(one.option, math.inf) <= most]
    least = min(one.off_share or 0.0 for one in able)
    return [one for one in able if (one.off_share or 0.0) <= least + AS_PLACED]


def _noise(one: TriedScheme) -> float:
    return math.inf if one.noise_db is None else one.noise_db
