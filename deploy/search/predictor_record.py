"""predictor.json: the accuracy predictor, what speaks for it, and what a search by it selects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records import Record
from deploy.run.records.base import OMITTED
from nas.settings import STRICT
from nas.training.train import Schedule

Interval = tuple[float, float]


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau-b and Spearman's rho with their 95 % bootstrap intervals over models."""

    tau_b: float
    tau_b_ci95: Interval
    spearman: float
    spearman_ci95: Interval
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class PredictorRank(RankAgreement):
    """How one way to predict ranks models that it has not seen.

    Attributes:
        tau_b_gain_ci95: interval of its tau-b less that of the plain NSR sum; None of the sum itself.
        rms_error: in points of the score; None of the NSR sum, which is no score.
    """

    tau_b_gain_ci95: Interval | None = field(default=None, metadata=OMITTED)
    rms_error: float | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RidgeWeights:
    """A fitted predictor: score = intercept + nsr_sum * (sum of NSRs) + weights . terms, in the score's unit."""

    order: int
    strength: float
    intercept: float
    nsr_sum: float
    weights: Mapping[str, float]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class FineTunedModel:
    """A fine-tuned model.

    Attributes:
        score: of the deployed integers, in percent.
        seconds: wall time of the fine-tuning.
        nsr: sum over its blocks.
        held_out_1: the score that the predictor of order 1 fitted on the others expects; held_out_2: that of order 2.
    """

    subnet: str
    score: float
    seconds: float
    nsr: float
    held_out_1: float
    held_out_2: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class PredictedModel:
    """A model, its expected score in percent, and the sum of its blocks' NSRs."""

    subnet: str
    predicted: float
    nsr: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class PredictorSelection:
    """What a search by the predictor selects within a budget.

    Attributes:
        name: the budget's.
        predicted: the expected score, in percent.
        nsr: sum over the blocks; size_bits, latency_us: of the full model.
        least_nsr: what the least NSR sum selects there.
    """

    name: str
    subnet: str
    predicted: float
    nsr: float
    size_bits: float
    latency_us: float
    least_nsr: PredictedModel
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class PredictorRecord(Record):
    """The accuracy predictor of a run.

    Attributes:
        key: a digest of all that the fine-tunings depend on.
        metric: of the scores.
        order: that the search goes by, 1 or 2.
        schedule: of the fine-tunings.
        rank: by way to predict (nsr_sum, order_1, order_2).
        rms_error_of_the_mean: error of predicting the other models' mean, in points of the score.
        predictors: of order 1 and 2.
        models: that were fine-tuned.
        selected: one per budget; None before there was a search.
    """

    key: str
    metric: str
    order: int
    schedule: Schedule
    rank: Mapping[str, PredictorRank]
    rms_error_of_the_mean: float
    predictors: tuple[RidgeWeights, ...]
    models: tuple[FineTunedModel, ...]
    selected: tuple[PredictorSelection, ...] | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "predictor.json"
    COMMAND: ClassVar[str] = "predict"
