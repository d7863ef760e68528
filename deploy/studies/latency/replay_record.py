"""The comparison of ways to measure, as one JSON record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from deploy.run.records import Compared, Record
from nas.settings import STRICT


@dataclass(frozen=True)
class ReplayOutcome:
    """How good a way of measuring is, after a batch.

    Attributes:
        method: everything, active or random.
        seed: of its choices.
        blocks: number that it measured.
        models: number of full networks that it measured.
        board_s: board time of all.
        tau_b: of the table's sums and the held-out networks.
        tau_b_corrected: the same, corrected by its full networks.
        error_percent: mean absolute error of the corrected predictions.
        hypervolume: of the table's front at the latencies of the full table, as a share of the full table's.
        ended: why no more was measured; empty: more was.
    """

    method: str
    seed: int
    blocks: int
    models: int
    board_s: float
    tau_b: float
    tau_b_corrected: float
    error_percent: float
    hypervolume: float
    ended: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SeedSpread:
    """A figure over seeds: the mean, and the ends of the middle 90 %."""

    mean: float
    p5: float
    p95: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MethodSummary:
    """How a method ended, over seeds; the fields are those of `ReplayOutcome`."""

    blocks: SeedSpread
    models: SeedSpread
    board_s: SeedSpread
    tau_b: SeedSpread
    tau_b_corrected: SeedSpread
    error_percent: SeedSpread
    hypervolume: SeedSpread
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class TableAgreement:
    """The table that measured everything, compared with the held-out networks as `hilnas agree` does.

    Attributes:
        as_measured: sums of what was measured.
        predicted: sums of the posterior that all of it gives together.
        corrected: those, corrected by the pool's full networks.
    """

    as_measured: Compared
    predicted: Compared
    corrected: Compared
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ReplayRecord(Record):
    """What `hilnas lut latency compare` writes.

    Attributes:
        space: name of the search space.
        size: of the network's input, (H, W).
        scheme: of the quantization.
        conditions: of the recording.
        blocks: number of recorded blocks.
        held_out: number of networks that nothing was fitted to.
        ceiling_tau_b: tau-b of two halves of their samples.
        seeds: number of seeds.
        agreement: of the table that measured everything.
        methods: how each ended.
        outcomes: of every method after every batch.
    """

    space: str
    size: tuple[int, int]
    scheme: str
    conditions: Mapping[str, Any]
    blocks: int
    held_out: int
    ceiling_tau_b: float
    seeds: int
    agreement: TableAgreement
    methods: Mapping[str, MethodSummary]
    outcomes: tuple[ReplayOutcome, ...]

    FILE: ClassVar[str] = "latency-compare.json"
    COMMAND: ClassVar[str] = "lut latency compare"
