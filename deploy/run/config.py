"""An experiment: everything a run depends on, read strictly from a TOML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from deploy.compile.scheme import QuantizationScheme
from deploy.run.shipped import CONFIGURATIONS, load_space
from deploy.targets.placement import Target
from hil.reservation import seconds_of
from nas.data import Crops, Dataset
from nas.data.part import Part, held_out
from nas.data.sample import TaskName
from nas.errors import ConfigError
from nas.quant.scheme import FewBits, Granularity, Rounding, Scheme
from nas.settings import STRICT, build, read_toml
from nas.space import SearchSpace
from nas.tasks.network_training import TeacherLosses
from nas.tasks.task import AnyHead
from nas.training.device import FLOAT32, Compute, DeviceName
from nas.training.train import Schedule

MOST_HELD_OUT: Mapping[TaskName, int] = {"segmentation": 64, "classification": 512}
"""By task: an image whose pixels are labelled says as much as many with one label, and takes longer to score."""
TEACHER, TEACHER_PLUS = "teacher", "teacher_plus"
"""Names of models beside the budgets': the teacher, and the teacher trained on by the selected models' recipe."""


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
    """The network to learn from, whose head is its task's; `encoder_from`: a public INT8 MobileNetV2 .tflite.

    What is in that file counts (`deploy.run.keys.encoder_digest`), not where it lies.
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
class Quantization:
    """How networks are quantized (nas.quant.scheme), and on how many images that is calibrated and evaluated.

    Attributes:
        few_bits, rounding: of weights of fewer than 8 bits (nas.quant.scheme).
        schemes: other ones that the search may select for a full model (`deploy.compile.scheme`); no stage before the
            one of their name depends on them. None: those of the board's target (`Experiment.on`); empty: none.
    """

    granularity: Granularity = "channel"
    calibration_images: int = 16
    evaluation_images: int = 8
    observer: str = "minmax"
    equalize: bool = False
    bias_correction: bool = False
    few_bits: FewBits = "asymmetric"
    rounding: Rounding = "nearest"
    schemes: tuple[str, ...] | None = None
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"schemes"})
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _ = self.scheme  # refuses an unknown observer now, not hours later
        schemes = [self.main_scheme, *self.other_schemes]
        for twice in {str(scheme) for scheme in schemes if schemes.count(scheme) > 1}:
            raise ConfigError(f"quantization.schemes: '{twice}' is there already; name each scheme once")

    @property
    def main_scheme(self) -> QuantizationScheme:
        return QuantizationScheme(self.granularity)

    @property
    def other_schemes(self) -> tuple[QuantizationScheme, ...]:
        return tuple(QuantizationScheme.parse(text) for text in self.schemes or ())

    @property
    def scheme(self) -> Scheme:
        return Scheme(
            self.granularity, self.observer, self.equalize, self.bias_correction, self.few_bits, self.rounding
        )


@dataclass(frozen=True)
class Measuring:
    """How long each model is run on the board; see hil.measure.MeasureProtocol."""

    warmup_runs: int = 5
    runs: int = 30
    rounds: int = 2
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Profile(Measuring):
    """How the latency table is measured.

    Attributes:
        form: isolated; between its neighbours; or a full model with the one block exchanged
            (`deploy.compile.block_forms`).
        budget: of the board's time, as "10min": only what counts is measured (`deploy.latency.active`), and no more
            once the Pareto front is stable; the rest is predicted. None: everything is measured.
    """

    form: Literal["isolated", "bounded", "exchanged"] = "isolated"
    budget: str | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.budget is not None:
            seconds_of(self.budget)
            if self.form != "isolated":
                raise ConfigError(f"profile.budget goes with isolated blocks, not with form '{self.form}'")


@dataclass(frozen=True)
class Agreement:
    """Full models that the latency table is compared with.

    Attributes:
        models: how many, over the whole range of the table's sums.
        top: the k of top-k recall.
        tau: the gate: the search uses no table with a lower tau-b. Nothing is measured again for another one.
    """

    models: int = 36
    top: int = 10
    measuring: Measuring = Measuring()
    tau: float = 0.95
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"tau"})
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.models < 3:
            raise ConfigError(f"agreement.models {self.models}: a rank correlation needs at least 3 models")
        if self.top < 1:
            raise ConfigError(f"agreement.top {self.top}: ask for the fastest 1 or more")
        if not -1 <= self.tau <= 1:
            raise ConfigError(f"agreement.tau {self.tau}: a rank correlation is between -1 and 1")


@dataclass(frozen=True)
class Budget:
    """A model to find: the least NSR at most this share of the teacher's latency and size."""

    name: str
    latency: float | None = None
    size: float | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.latency is None and self.size is None:
            raise ConfigError(f"budget '{self.name}': give latency, size or both, as a share of the teacher's")
        if not self.name.isidentifier() or self.name in (TEACHER, TEACHER_PLUS):
            raise ConfigError(
                f"budget '{self.name}': a name is letters, digits and _, and neither '{TEACHER}' nor '{TEACHER_PLUS}'"
            )


@dataclass(frozen=True)
class Retrain(Schedule):
    """The selected models' training; without options, as published.

    Attributes:
        start: from the supernets' blocks and the teacher's stem and head, or from new random weights.
        distillation: weight of the teacher's soft targets (`nas.training.soft_targets`), 0 (labels only) to 1.
        temperature: of both softmaxes.
        boundaries: weight of the NSR of the model's own maps at the block boundaries against the teacher's.
        quantization_aware_steps: more steps of models with blocks of fewer than 8 bits, as the integers that they are
            deployed as (`nas.training.quantization_aware`), at a tenth of the learning rate.
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


EstimateName: TypeAlias = Literal["nsr", "channels", "blocks", "weighted"]


@dataclass(frozen=True)
class Search:
    """How models are selected before they are retrained.

    Attributes:
        estimate: the sum over blocks that is minimised exactly (`deploy.search.estimates`).
        candidates: how many of the least sums under a budget are assembled and ranked by how far their integers'
            outputs are from the teacher's (`deploy.search.ranking`); 0: the sum decides.
        measured: of the best models under a budget of latency, how many are compiled and measured whole, beside the
            teacher, before one is selected (`deploy.search.confirm`); 0: the latency table alone decides.
        rounds: how often that is done at most, each time after what was measured has corrected the table.
        finalists: how many of the best are fine-tuned briefly, the best of them to be retrained
            (`deploy.search.halving`); 0: none.
        finalist_schedule: of that fine-tuning; None: the retraining's with a fifth of its steps.
    """

    estimate: EstimateName = "nsr"
    candidates: int = 0
    measured: int = 4
    rounds: int = 4
    finalists: int = 0
    finalist_schedule: Schedule | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if min(self.candidates, self.finalists, self.measured) < 0 or self.rounds < 1:
            raise ConfigError("search: candidates, measured and finalists must be 0 (off) or more, rounds 1 or more")


@dataclass(frozen=True)
class Predictor:
    """The accuracy predictor (`deploy.search.predictor`).

    Attributes:
        models: how many are fine-tuned; DONNA (arXiv 2012.08859) takes about 30.
        schedule: of a fine-tuning; None: the retraining's with a fifth of its steps.
        order: 1 is additive and searched exactly; 2 has squares and products too, and ranks candidates anew.
        neighbours: how many candidates under each budget are ranked anew.
        objective: whether the loop's search goes by it, instead of the NSR sum.
    """

    models: int = 30
    schedule: Schedule | None = None
    order: Literal[1, 2] = 2
    neighbours: int = 200
    objective: bool = False
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.models < 5 or self.neighbours < 1:
            raise ConfigError("predictor: models must be at least 5 (each is predicted by the others), neighbours 1")


@dataclass(frozen=True)
class Compare:
    """How rivals of the block-wise search are trained, searched and retrained (`deploy.compare.compare_search`).

    Attributes:
        supernet: the whole-network supernets' training; None: the teacher's. Its steps count paths: a step of FairNAS
            trains one path for each choice of a layer, and takes so many fewer.
        start: from the teacher's weights, as the blocks may, or from new random ones.
        evaluations: architectures that evolution or random search evaluates, in generations of `population`.
        random_blocks: random architectures within the budget that are retrained beside the winners.
        retrain: of every winner and control; None: as the selected models'.
        retrainings: how often, each with another seed: a smaller difference than theirs is no difference.
    """

    supernet: Schedule | None = None
    start: Literal["teacher", "random"] = "teacher"
    evaluations: int = 100
    population: int = 20
    parents: int = 5
    random_blocks: int = 3
    retrain: Retrain | None = None
    retrainings: int = 1
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        counts = (self.evaluations, self.population, self.parents, self.random_blocks, self.retrainings)
        if min(counts) < 1:
            raise ConfigError(
                "compare: evaluations, population, parents, random_blocks and retrainings must be positive"
            )


@dataclass(frozen=True)
class Experiment:
    """`space` is a space's name, or a path relative to the configuration file; its content counts in keys, as the
    boards' does, not the names.
    """

    name: str
    space: str
    data: Data
    teacher: Teacher
    distil: Distil
    retrain: Retrain
    budgets: tuple[Budget, ...]
    quantization: Quantization = Quantization()
    profile: Profile = Profile()
    agreement: Agreement = Agreement()
    compute: Compute = FLOAT32
    search: Search = Search()
    predictor: Predictor = Predictor()
    compare: Compare = Compare()
    board: str = "loopback"
    seed: int = 0
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"name", "space", "board", "compare"})
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if len({budget.name for budget in self.budgets}) != len(self.budgets) or not self.budgets:
            raise ConfigError("budgets: give at least one, and no name twice")
        if self.quantization.schemes and self.profile.form != "isolated":
            raise ConfigError(
                f"profile.form '{self.profile.form}': other schemes are measured as isolated blocks; leave it out, or "
                "set quantization.schemes = []"
            )
        if self.predictor.objective and self.quantization.schemes:
            raise ConfigError(
                "predictor.objective: it is fitted on models of one scheme; leave it out, or set "
                "quantization.schemes = []"
            )

    @property
    def confirms(self) -> bool:
        """Whether the search measures candidates whole: budgets of size are exact."""
        return bool(self.search.measured) and any(budget.latency is not None for budget in self.budgets)

    def on(self, target: Target | None) -> Experiment:
        """With the schemes of the board's target, where the configuration leaves them open.

        Raises `ConfigError` naming the target where one of them is none, or does not go with other settings.
        """
        own, named = self.quantization, target.schemes if target else ()
        if own.schemes is not None:
            return self
        try:
            others = [str(scheme) for scheme in map(QuantizationScheme.parse, named) if scheme != own.main_scheme]
            return replace(self, quantization=replace(own, schemes=tuple(others)))
        except ConfigError as error:
            whose = f"target '{target.name}'" if target else "no target"
            raise ConfigError(
                f"schemes {', '.join(named)} of {whose} (quantization.schemes is unset): {error}"
            ) from None


@dataclass(frozen=True)
class Overrides:
    """What the command line may change in a configuration; None leaves it as it is."""

    data: str | None = None
    encoder_from: str | None = None
    board: str | None = None
    name: str | None = None
    device: DeviceName | None = None
    models: int | None = None
    budget: str | None = None

    @classmethod
    def of(cls, arguments: object) -> Overrides:
        """Those that the command line's arguments have."""
        return cls(**{field.name: getattr(arguments, field.name, None) for field in fields(cls)})


def load_experiment(path: str | Path, overrides: Overrides) -> tuple[Experiment, SearchSpace]:
    """The experiment of a configuration (its file, or a name) and its space, with the command line's changes.

    Raises `ConfigError` for a missing file, an unknown key (naming the near miss) or a wrong value.
    """
    path = CONFIGURATIONS.find(path)
    settings = read_toml(path)
    _refuse_former_keys(settings, str(path))
    experiment = build(Experiment, settings, str(path))
    space = load_space(experiment.space, path.parent)
    rates = len(experiment.distil.learning_rates)
    if rates not in (1, len(space.blocks)):
        raise ConfigError(f"{path}: distil.learning_rates has {rates} entries, the space {len(space.blocks)} blocks")
    if overrides.data:
        experiment = replace(experiment, data=replace(experiment.data, spec=overrides.data))
    if overrides.encoder_from:
        experiment = replace(experiment, teacher=replace(experiment.teacher, encoder_from=overrides.encoder_from))
    if overrides.models is not None:
        experiment = replace(experiment, agreement=replace(experiment.agreement, models=overrides.models))
    if overrides.budget is not None:
        experiment = replace(experiment, profile=replace(experiment.profile, budget=overrides.budget))
    if overrides.device:
        experiment = replace(experiment, compute=replace(experiment.compute, device=overrides.device))
    return replace(experiment, board=overrides.board or experiment.board, name=overrides.name or experiment.name), space


FORMER_KEYS = {("quantization", "alternatives"): "schemes"}
"""By section and key what a key is called now."""


def _refuse_former_keys(settings: Mapping[str, Any], where: str) -> None:
    for (section, former), name in FORMER_KEYS.items():
        written = settings.get(section)
        if isinstance(written, dict) and former in written:
            raise ConfigError(f"{where}: '{section}.{former}' is called '{section}.{name}' now; rename it")
