"""What a network is trained on, and how: the settings [data], [teacher], [distil] and [retrain]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

from nas.data import Crops, Dataset
from nas.data.part import Part, held_out
from nas.data.sample import TaskName
from nas.errors import ConfigError
from nas.settings import STRICT
from nas.tasks.network_training import TeacherLosses
from nas.tasks.task import AnyHead
from nas.training.train import Schedule

MOST_HELD_OUT: Mapping[TaskName, int] = {"segmentation": 64, "classification": 512}
"""By task: an image whose pixels are labelled says as much as many with one label, and takes longer to score."""


@dataclass(frozen=True)
class Data:
    """The images to train on and to evaluate with.

    Attributes:
        spec: a key of `nas.data.DATASETS`, with :FOLDER where it is stored.
        size: (H, W) that images are resized to where they are not trained on: of what is deployed and evaluated.
        crop: (H, W) of training crops, which are cut from the images at their own resolution; None: `size`.
        scales: lowest and highest at which training shows an image, 1 being `size`; None: the task's
            (`nas.data.augment.SCALES`). The lowest is raised where a crop would be padded.
        train, val: how many images of the splits; None: all, or the default of generated ones.
        held_out: how many images of the training split are not trained on, but chosen by; None: an eighth, at most
            MOST_HELD_OUT. The validation split is for the report.
    """

    spec: str
    size: tuple[int, int]
    train: int | None = None
    val: int | None = None
    crop: tuple[int, int] | None = None
    scales: tuple[float, float] | None = None
    held_out: int | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.held_out is not None and self.held_out < 1:
            raise ConfigError(f"data.held_out {self.held_out}: models are chosen by these images; give at least 1")
        try:
            _ = self.crops
        except ConfigError as error:
            raise ConfigError(f"data.{error}") from None

    @property
    def crops(self) -> Crops:
        return Crops(self.crop, self.scales)

    def split_training(self, images: Dataset) -> tuple[Part, Part]:
        """(what is trained on, what is held out) of the training split's images; `ConfigError` if one has none."""
        count = self.held_out or min(MOST_HELD_OUT[images.task], max(1, len(images) // 8))
        return held_out(images, count)

    @property
    def name(self) -> str:
        return self.spec.partition(":")[0]


@dataclass(frozen=True)
class Teacher:
    """The network to learn from.

    Attributes:
        head: that of the data's task, segmentation or classification.
        encoder_from: a public INT8 MobileNetV2 .tflite to start from. What is in that file counts
            (`deploy.run.keys.encoder_digest`), not where it lies. None: new random weights.
    """

    head: AnyHead
    schedule: Schedule
    encoder_from: str | None = None
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"encoder_from"})
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Distil:
    """The supernets' training.

    Attributes:
        learning_rates: one for each block, or one for all.
        start: from the teacher's layers (`nas.networks.start`), or from new random weights, as published.
        views: None: a fresh augmentation a step, as published; n: n fixed ones of each image; 0: the image as it is.
        cache_gb: how much of the fixed views' feature maps is kept on disk (1e9 bytes); changes no weight.
    """

    schedule: Schedule
    learning_rates: tuple[float, ...] = (0.002,)
    start: Literal["teacher", "random"] = "teacher"
    views: int | None = None
    cache_gb: float = 0.0
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"cache_gb"})
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.views is not None and self.views < 0:
            raise ConfigError(f"distil.views {self.views}: give 0 (images as they are) or more")
        if not 0 <= self.cache_gb < math.inf:
            raise ConfigError(f"distil.cache_gb {self.cache_gb}: give 0 (no cache) or more")
        if self.cache_gb and self.views is None:
            raise ConfigError(
                "distil.cache_gb: a fresh augmentation a step shows nothing twice; set distil.views, or leave it out"
            )


@dataclass(frozen=True)
class Retrain(Schedule):
    """The selected models' training; without options, as published.

    Attributes:
        start: from the supernets' blocks and the teacher's stem and head, or from new random weights.
        distillation: weight of the teacher's soft targets (`nas.training.soft_targets`), 0 (labels only) to 1.
        temperature: of both softmaxes.
        boundaries: weight of the NSR of the model's own maps at the block boundaries against the teacher's.
        quantization_aware_steps: more steps of every final model as the integers that it is deployed as
            (`nas.training.quantization_aware`), at a tenth of the learning rate.
    """

    start: Literal["supernet", "scratch"] = "supernet"
    distillation: float = 0.0
    temperature: float = 1.0
    boundaries: float = 0.0
    quantization_aware_steps: int = 0
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.teacher_losses  # refuses a wrong weight now, not hours later
        if self.quantization_aware_steps < 0:
            raise ConfigError(
                f"retrain.quantization_aware_steps {self.quantization_aware_steps}: give 0 (none) or more"
            )

    @property
    def teacher_losses(self) -> TeacherLosses:
        try:
            return TeacherLosses(self.distillation, self.temperature, self.boundaries)
        except ConfigError as error:
            raise ConfigError(f"retrain.{error}") from None

    @property
    def schedule(self) -> Schedule:
        return Schedule(**{field.name: getattr(self, field.name) for field in fields(Schedule)})

    @property
    def finish(self) -> Schedule:
        """Of the quantization-aware steps."""
        steps, rate = self.quantization_aware_steps, self.learning_rate / 10
        return replace(self.schedule, steps=steps, learning_rate=rate, warmup_steps=0)
