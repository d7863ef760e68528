"""evaluation.json and confusions.parquet: a model's metric by what predicted, with the doubt that the images leave."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import ClassVar

from deploy.formats.digest import digest, file_digest
from deploy.formats.files import write_atomically
from deploy.run.records import MetricRecord, Record
from deploy.run.records.base import OMITTED
from deploy.ship.evaluation import FLOAT, EvaluatedModel, ImageScore, image_name
from hil.errors import ModelError
from hil.measurement import Conditions
from nas.data import Dataset
from nas.errors import DataError
from nas.estimate import Estimate
from nas.settings import STRICT
from nas.tasks.confusion import class_scores, counted_cells
from nas.tasks.counted import Counted, paired_difference, score_of
from nas.tasks.task import TASKS

CONFUSIONS = "confusions.parquet"
MOST_NAMED = 5  # images


@dataclass(frozen=True)
class PredictorScore:
    """Of what predicted: the metric in percent, and each class's IoU (of classification: share of right images)."""

    predictor: str
    score: Estimate
    classes: tuple[float | None, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ScoreDifference:
    """The metric of `predictor` less that of `other`, in points, on the same images."""

    predictor: str
    other: str
    points: Estimate
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class OtherModel:
    """The metric less that of another model: by `predictor`, and `other_predictor` there, on the same images."""

    model: str
    model_sha256: str
    predictor: str
    other_predictor: str
    points: Estimate
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DifferingImage:
    """An image, and the share of its pixels that the first two predictors classify differently."""

    image: str
    share: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class FailedImage:
    """An image that a device had no output for."""

    image: str
    reason: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class EvaluatedImages:
    """The images: spec and split of the data set, (H, W) at which they were scored, and how many of them were."""

    data: str
    split: str
    size: tuple[int, int]
    scored: int
    classes: tuple[str, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class EvaluationRecord(Record):
    """A model's evaluation.

    Attributes:
        input, output: how the file's ends were read, for people.
        conditions: of the board; None where none took part.
        against: the other model that it was compared with, by each predictor that both have.
        scores: by what predicted, the board's first.
        differences: of each of these to those after it.
        differ_most: the images on which the first two differ most, the most first.
        failed: images that count in no score.
    """

    model: str
    model_sha256: str
    images: EvaluatedImages
    metric: MetricRecord
    input: str
    output: str
    scores: tuple[PredictorScore, ...]
    differences: tuple[ScoreDifference, ...]
    differ_most: tuple[DifferingImage, ...]
    failed: tuple[FailedImage, ...]
    conditions: Conditions | None = field(default=None, metadata=OMITTED)
    against: tuple[OtherModel, ...] = field(default=(), metadata=OMITTED)

    FILE: ClassVar[str] = "evaluation.json"
    COMMAND: ClassVar[str] = "evaluate"

    @property
    def key(self) -> str:
        """That of its images' results on the board, in a run's evaluations/NAME.jsonl; `ModelError` without a board."""
        if self.conditions is None:
            raise ModelError(f"{self.model}: no board took part in its evaluation")
        return images_key(self.model_sha256, self.input, self.output, self.conditions)

    @classmethod
    def of(
        cls, model: EvaluatedModel, evaluated: ScoredImages, images: EvaluatedImages, conditions: Conditions | None
    ) -> EvaluationRecord:
        task = TASKS[evaluated.data.task]
        return cls(
            model=str(model.path),
            model_sha256=file_digest(model.path),
            images=images,
            metric=MetricRecord(task.metric, task.key),
            input=model.input.text,
            output=model.output.text,
            scores=evaluated.predictor_scores(),
            differences=evaluated.differences(),
            differ_most=evaluated.differ_most(),
            failed=evaluated.failed,
            conditions=conditions,
        )

    def score(self, predictor: str) -> PredictorScore | None:
        return next((one for one in self.scores if one.predictor == predictor), None)


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """An evaluation's image scores as counts: `counted` by what predicted, over the images that all predicted."""

    data: Dataset
    scores: tuple[ImageScore, ...]
    counted: Mapping[str, Counted]

    @classmethod
    def of(cls, data: Dataset, scores: Sequence[ImageScore], model: str) -> ScoredImages:
        """Raises `ModelError` where no image was scored, `DataError` where none has a labelled pixel."""
        well = [score for score in scores if score.failure is None]
        if not well:
            raise ModelError(f"{model}: fails on all {len(scores)} images; first: {scores[0].failure}")
        if not any(score.confusions[name] for score in well for name in score.confusions):
            raise DataError(f"{data.name}: none of {len(well)} images has a labelled pixel; take a split with labels")
        dense, classes = TASKS[data.task].dense, len(data.classes)
        names = list(well[0].confusions)
        counted = {
            name: counted_cells([score.confusions[name] for score in well], classes, dense=dense) for name in names
        }
        return cls(data, tuple(scores), counted)

    @property
    def well(self) -> list[ImageScore]:
        return [score for score in self.scores if score.failure is None]

    @property
    def failed(self) -> tuple[FailedImage, ...]:
        named = ((image_name(self.data, score.index), score.failure) for score in self.scores)
        return tuple(FailedImage(name, failure) for name, failure in named if failure is not None)

    def predictor_scores(self) -> tuple[PredictorScore, ...]:
        dense, classes = TASKS[self.data.task].dense, len(self.data.classes)
        return tuple(
            PredictorScore(
                name,
                score_of(counted),
                class_scores([score.confusions[name] for score in self.well], classes, dense=dense),
            )
            for name, counted in self.counted.items()
        )

    def differences(self) -> tuple[ScoreDifference, ...]:
        """The first to all others; what is not the float network to that."""
        return tuple(
            ScoreDifference(one, other, paired_difference([self.counted[one]], [self.counted[other]]))
            for one, other in combinations(self.counted, 2)
            if one == next(iter(self.counted)) or other == FLOAT
        )

    def differ_most(self) -> tuple[DifferingImage, ...]:
        found = sorted(self.well, key=lambda score: -(score.differing or 0.0))[:MOST_NAMED]
        return tuple(DifferingImage(image_name(self.data, s.index), s.differing) for s in found if s.differing)

    def less(self, other: ScoredImages, ours: str, theirs: str) -> Estimate:
        """The metric by `ours` less that of another model by `theirs`, on the images that both have."""
        scored = {score.index: score for score in other.well}
        common = [score for score in self.well if score.index in scored]
        dense, classes = TASKS[self.data.task].dense, len(self.data.classes)
        one = counted_cells([score.confusions[ours] for score in common], classes, dense=dense)
        two = counted_cells([scored[score.index].confusions[theirs] for score in common], classes, dense=dense)
        return paired_difference([one], [two])


def images_key(model_sha256: str, input_: str, output: str, conditions: Conditions) -> str:
    """Of one image's result on a board, by what an `EvaluationRecord` says of it."""
    return digest(model_sha256, input_, output, conditions.key())


def evaluation_path(run: Path, model: str) -> Path:
    """Of the record that a run's stage `ship` leaves of a final model on its board."""
    return run / "evaluations" / f"{model}.json"


def write_confusions(path: Path, evaluated: ScoredImages) -> None:
    """A row for each image, predictor, label and predicted class that occur together, with their number of pixels."""
    import pandas as pd

    rows = [
        (score.index, image_name(evaluated.data, score.index), predictor, label, predicted, count)
        for score in evaluated.well
        for predictor, cells in score.confusions.items()
        for label, predicted, count in cells
    ]
    frame = pd.DataFrame(rows, columns=["image", "name", "predictor", "label", "predicted", "count"])
    frame.attrs["classes"] = list(evaluated.data.classes)
    content = io.BytesIO()
    frame.to_parquet(content, engine="pyarrow", index=False)
    write_atomically(path, content.getbuffer())
