"""ranking.json: what ranks architectures before they are retrained, held to what they are afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records import Record
from deploy.run.records.base import OMITTED
from deploy.search.predictor_record import PredictorRank, RankAgreement
from nas.settings import STRICT
from nas.training.train import Schedule


@dataclass(frozen=True)
class RetrainedModel:
    """An architecture of the study.

    Attributes:
        scores: of the deployed integers on the validation images after each retraining, in percent.
        predicted: by way to rank what it says, more being better.
        seconds: wall time of its retrainings.
    """

    subnet: str
    scores: tuple[float, ...]
    predicted: Mapping[str, float]
    seconds: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RankingRecord(Record):
    """How each way ranks retrained models.

    Attributes:
        metric: of the scores.
        schedule: of a retraining; brief: of a fine-tuning.
        evaluation_images: that the NSRs are computed on; split_half_tau_b: how far these agree, by block.
        rank: by way, against the mean over the retrainings of each model.
        noise_ceiling: how the first retraining ranks the second; None where there is one only.
    """

    metric: str
    schedule: Schedule
    brief: Schedule
    evaluation_images: int
    split_half_tau_b: tuple[float, ...]
    rank: Mapping[str, PredictorRank]
    models: tuple[RetrainedModel, ...]
    noise_ceiling: RankAgreement | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "ranking.json"
    COMMAND: ClassVar[str] = "study ranking"
