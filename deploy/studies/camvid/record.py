"""camvid.json: what the study found, by the rules of docs/camvid.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from deploy.run.records import Record
from deploy.run.records.agreement import Interval
from deploy.run.records.base import OMITTED
from deploy.studies.camvid.conduct import StepRecord
from nas.estimate import Estimate
from nas.settings import STRICT

Verdict = Literal["better", "without loss", "undecided"]


@dataclass(frozen=True)
class StudiedModel:
    """A final model of one run.

    Attributes:
        score: the board's own, in percent.
        size_share, latency_share: of the INT8 teacher's of the same run; the latency measured beside it.
    """

    seed: int
    name: str
    subnet: str
    score: float
    size_share: float
    latency_share: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class StudyClaim:
    """A model against the teacher trained on, over the paired runs.

    Attributes:
        difference: in points of the score.
        size_share, latency_share: means over the runs.
    """

    name: str
    seeds: tuple[int, ...]
    difference: Estimate
    verdict: Verdict
    size_share: float
    latency_share: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SameRecipe:
    """A model against the teacher trained on, both without quantization-aware steps, and both with.

    Attributes:
        plain, finished: the difference in points of the score.
        plain_score, finished_score: means over the runs, in percent.
    """

    name: str
    seeds: tuple[int, ...]
    plain: Estimate
    finished: Estimate
    plain_score: float
    finished_score: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Control:
    """What was retrained beside a selected model within its budget, in one run.

    Attributes:
        score: of the deployed integers, in percent.
        found: the selected model's score less this one's, in points.
        cpu_s: by step what selecting it took in CPU seconds; None where that was not counted.
        finished_score, finished_found: both models with quantization-aware steps; None where that was not made.
    """

    seed: int
    budget: str
    method: str
    subnet: str
    score: float
    size_share: float
    found: Estimate
    cpu_s: dict[str, float | None]
    finished_score: float | None = field(default=None, metadata=OMITTED)
    finished_found: Estimate | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class PartOfRecipe:
    """A model retrained without one part of the recipe, in one run.

    Attributes:
        score: of the deployed integers, in percent.
        change: in points, from the model with the whole recipe.
        against: in points, to the teacher trained on without the same part; None where that was not made.
    """

    seed: int
    model: str
    without: str
    score: float
    change: Estimate
    against: Estimate | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class OneWidth:
    """A final network at one width everywhere, or with LCPAQ's widths in each layer (`bits` None).

    Attributes:
        difference: to the teacher trained on, in points; None where no image's result is kept.
    """

    seed: int
    name: str
    bits: int | None
    score: float
    size_share: float
    difference: Estimate | None
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RunAgreement:
    """Of one run's latency table with full networks."""

    seed: int
    models: int
    tau_b: float
    ci95: Interval
    ceiling_tau_b: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class StageCost:
    """What a stage of a run took, in seconds; of a stage that was killed the part until then is not known."""

    seed: int
    stage: str
    wall_s: float
    cpu_s: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Ranking:
    """How one way to rank architectures agrees with what they are once retrained, in one run."""

    seed: int
    way: str
    tau_b: float
    ci95: Interval
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class CamvidRecord(Record):
    """The study as far as it is done.

    Attributes:
        block: consecutive frames that are resampled together; margin: of "without loss", in points.
        ceiling: tau-b of one retraining with another; None before the ranking is done.
        same_recipe: models of 8 bits.
    """

    block: int
    margin: float
    claims: tuple[StudyClaim, ...]
    models: tuple[StudiedModel, ...]
    controls: tuple[Control, ...]
    widths: tuple[OneWidth, ...]
    agreements: tuple[RunAgreement, ...]
    costs: tuple[StageCost, ...]
    rankings: tuple[Ranking, ...]
    ceiling: float | None
    steps: tuple[StepRecord, ...]
    same_recipe: tuple[SameRecipe, ...] = field(default=(), metadata=OMITTED)
    ablation: tuple[PartOfRecipe, ...] = field(default=(), metadata=OMITTED)

    FILE: ClassVar[str] = "camvid.json"
    COMMAND: ClassVar[str] = "study camvid"
