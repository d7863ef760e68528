"""agreement.json: how well sums of block latencies agree with the latencies of full models, and the correction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records.base import OMITTED, Record, renamed
from hil.measurement import Conditions
from nas.settings import STRICT

Interval = tuple[float, float]


@dataclass(frozen=True)
class RankStatistics:
    """How well sums of latencies and measured ones agree.

    Attributes:
        ceiling_tau_b: plain tau-b between two halves of the same samples; no table can be seen to do much better.
        offset_us: the table's constant, the median of measured less additive.
        error_percent: mean absolute error of additive + offset, of the measured latency.
        top_k: how many of the fastest are asked for; at most half of the models.
        top_recall: share of the k fastest measured among the k fastest by the table, with its bootstrap interval.
    """

    tau_b: float
    ci95: Interval
    n_models: int
    spearman: float
    ceiling_tau_b: float
    offset_us: float
    error_percent: float
    top_k: int
    top_recall: float
    top_recall_ci95: Interval
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Regret:
    """What one budget's pick costs: `percent` slower than the least measured latency of the models within it."""

    quantile: float
    limit: float
    models: int
    picked: str
    picked_us: float
    least_us: float
    percent: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Regrets:
    """The regret under budgets of a table's quantity (NSR, size), each and the worst, in percent."""

    quantity: str
    budgets: tuple[Regret, ...]
    worst_percent: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Offender:
    """A model predicted badly; `residual_percent` of the measured latency, over 0: slower than predicted."""

    subnet: str
    predicted_us: float
    measured_us: float
    residual_percent: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ComparedModel:
    """A full model: the table's sum, the sum with the offset, the board's median, and the medians of two halves."""

    subnet: str
    additive_us: float
    predicted_us: float
    measured_us: float
    halves_us: tuple[float, float]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Compared:
    """Predictions compared with measurements: statistics, regret, worst offenders, and every model."""

    agreement: RankStatistics
    regret: Regrets
    offenders: tuple[Offender, ...]
    samples: tuple[ComparedModel, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class AsMeasured:
    """tau-b of the table's version in which every block was measured and none predicted."""

    version: str
    tau_b: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Correction:
    """How full models' measurements corrected the table.

    Attributes:
        constant_us: latency of a full model beside the corrected sum of its blocks.
        n_models: fitted to; all but those of one fold where a statistic is held out.
        tau_b_before, error_before: of the table with a constant from the other models (error: mean absolute, percent).
        tau_b_held_out, error_held_out: of the correction.
        applied: whether it lowers the error on held-out models, and not tau-b beyond noise; otherwise the table stays,
            with a constant.
        prior_std: prior standard deviations of the groups of effects (`spreads` on disk).
        largest_us: the effects that change most, by name.
    """

    constant_us: float
    n_models: int
    tau_b_before: float
    tau_b_held_out: float
    error_before: float
    error_held_out: float
    applied: bool
    prior_std: Mapping[str, float]
    largest_us: Mapping[str, float]
    __pydantic_config__ = renamed(prior_std="spreads")


@dataclass(frozen=True)
class GateRecord:
    """The gate's verdict: whether the table that the search uses agrees with the board.

    Attributes:
        tau_b: of the table that is used; `table` says which (`of` on disk).
        tau: the least that is accepted; `override`: it is the command line's, not the configuration's.
        holds: whether tau_b is at least tau.
    """

    tau_b: float
    table: str
    tau: float
    override: bool
    holds: bool
    __pydantic_config__ = renamed(table="of")


@dataclass(frozen=True)
class ExcludedModel:
    """A sampled model that failed on the board, and why."""

    subnet: str
    reason: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Suspect:
    """A choice, or a block boundary, that the errors of prediction follow.

    Attributes:
        where: `b1/0 e6`, a block's layer and its choice, kernel or expansion; `b1|b2 e6|k7`, what meets at a boundary.
        effect_us: by how much models with it are slower than predicted; effect_percent: of the mean latency.
        p_value: adjusted for all places that were tried.
        models: how many of the measured ones have it.
        boundaries: to measure blocks across, `stem|b1`, `b1|b2`; none where it lies inside a block.
    """

    where: str
    effect_us: float
    effect_percent: float
    p_value: float
    models: int
    boundaries: tuple[str, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Repair:
    """How a table came to know what blocks cost beside their neighbours.

    Attributes:
        boundaries: across which blocks were measured.
        graphs: how many were, in board_s seconds of the board's time; budget_s: that were allowed.
        effects_us: what was found, by boundary and feature.
        tau_b_before: of the table before.
    """

    boundaries: tuple[str, ...]
    graphs: int
    board_s: float
    budget_s: float
    effects_us: Mapping[str, float]
    tau_b_before: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class AgreementRecord(Record):
    """What the stage `agree` found.

    Attributes:
        agreement, regret, offenders, samples: of the table before the correction, whose errors are the clearer ones.
        as_measured: of the version in which nothing was predicted; None where not every block was measured.
        with_feedback: the same for the corrected table, each model left out of the fit; None where it is not applied.
        teacher_us: the INT8 teacher's median latency, of which budgets are shares.
        suspects: what the errors before the correction follow; repairs: that the table went through.
    """

    agreement: RankStatistics
    regret: Regrets
    offenders: tuple[Offender, ...]
    samples: tuple[ComparedModel, ...]
    as_measured: AsMeasured | None
    correction: Correction
    with_feedback: Compared | None
    excluded: tuple[ExcludedModel, ...]
    conditions: Conditions
    teacher_us: float
    gate: GateRecord
    suspects: tuple[Suspect, ...] = field(default=(), metadata=OMITTED)
    repairs: tuple[Repair, ...] = field(default=(), metadata=OMITTED)

    FILE: ClassVar[str] = "agreement.json"
    COMMAND: ClassVar[str] = "agree"
