"""What the studies of LCPAQ keep in their folder, so that the same command goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from deploy.run.records import Record
from nas.lcpaq.trial import Settings
from nas.settings import STRICT


@dataclass(frozen=True)
class PolicyScore:
    """A policy: its share of the INT8 size, and its validation accuracy (top-1, percent)."""

    share: float
    top1: float
    policy: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class BitsTable:
    """One network under one granularity.

    Attributes:
        fp32: the float network's accuracy (top-1, percent).
        rows: by method.
        trace_cpu_s: what the Hessian's traces took, seconds of CPU.
        layers: with weights.
    """

    fp32: float
    rows: Mapping[str, PolicyScore]
    trace_cpu_s: float
    layers: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class BitsRecord(Record):
    """The tables that are done, by their settings in words."""

    tables: Mapping[str, BitsTable]

    FILE: ClassVar[str] = "bits.json"
    COMMAND: ClassVar[str] = "study lcpaq-bits"


@dataclass(frozen=True)
class GridScore:
    """A setting of the grid, its score on the images that trials are scored on, its cost: a line of a journal."""

    settings: Settings
    score: float
    cpu_s: float


@dataclass(frozen=True)
class IsolatedCost(Record):
    """CPU seconds of a setting of the grid when no steps are shared with others."""

    cpu_s: float

    FILE: ClassVar[str] = "alone.json"
    COMMAND: ClassVar[str] = "study lcpaq-proxy"
