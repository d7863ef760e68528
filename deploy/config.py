"""An experiment: everything a run depends on, read strictly from `configs/*.toml`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from nas.errors import ConfigError
from nas.quant.scheme import Granularity, Scheme
from nas.settings import STRICT, build, read_toml
from nas.space import SearchSpace
from nas.teacher import Head
from nas.train import Schedule


@dataclass(frozen=True)
class Data:
    """`spec` is scenes, camvid:FOLDER or cityscapes:FOLDER; images are resized to `size` (H, W)."""

    spec: str
    size: tuple[int, int]
    train: int | None = None
    val: int | None = None
    __pydantic_config__ = STRICT

    @property
    def name(self) -> str:
        return self.spec.partition(":")[0]


@dataclass(frozen=True)
class Teacher:
    """The network to learn from; `encoder_from` is a public INT8 MobileNetV2 .tflite to start from."""

    head: Head
    schedule: Schedule
    encoder_from: str | None = None
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Distil:
    """`learning_rates`: one for each block, or one for all."""

    schedule: Schedule
    learning_rates: tuple[float, ...] = (0.002,)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Quantization:
    """How networks are quantized (nas.quant.scheme), and on how many images that is calibrated and judged."""

    granularity: Granularity = "channel"
    calibration_images: int = 16
    evaluation_images: int = 8
    observer: str = "minmax"
    equalize: bool = False
    bias_correction: bool = False
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _ = self.scheme  # refuses an unknown observer now, not hours later

    @property
    def scheme(self) -> Scheme:
        return Scheme(self.granularity, self.observer, self.equalize, self.bias_correction)


@dataclass(frozen=True)
class Measuring:
    """How long each model is run on the board; see hil.measure.MeasureProtocol."""

    warmup_runs: int = 5
    runs: int = 30
    rounds: int = 2
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Agreement:
    models: int = 36
    measuring: Measuring = Measuring()
    __pydantic_config__ = STRICT


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
        if not self.name.isidentifier() or self.name == "teacher":
            raise ConfigError(f"budget '{self.name}': a name is letters, digits and _, and not 'teacher'")


@dataclass(frozen=True)
class Experiment:
    """`space` is a path relative to the configuration file."""

    name: str
    space: str
    data: Data
    teacher: Teacher
    distil: Distil
    retrain: Schedule
    budgets: tuple[Budget, ...]
    quantization: Quantization = Quantization()
    profile: Measuring = Measuring()
    agreement: Agreement = Agreement()
    board: str = "loopback"
    seed: int = 0
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if len({budget.name for budget in self.budgets}) != len(self.budgets) or not self.budgets:
            raise ConfigError("budgets: give at least one, each with a name of its own")
        if self.agreement.models < 3:
            raise ConfigError("agreement.models: a rank correlation needs at least 3 models")


@dataclass(frozen=True)
class Overrides:
    """What the command line may change in a configuration; None leaves it as it is."""

    data: str | None = None
    encoder_from: str | None = None
    board: str | None = None
    name: str | None = None


def load_experiment(path: Path, overrides: Overrides) -> tuple[Experiment, SearchSpace]:
    """The experiment of a configuration file and its space, with the command line's changes.

    Raises `ConfigError` for a missing file, an unknown key (naming the near miss) or a wrong value.
    """
    experiment = build(Experiment, read_toml(path), str(path))
    space = SearchSpace.load(path.parent / experiment.space)
    rates = len(experiment.distil.learning_rates)
    if rates not in (1, len(space.blocks)):
        raise ConfigError(f"{path}: distil.learning_rates has {rates} entries, the space {len(space.blocks)} blocks")
    if overrides.data:
        experiment = replace(experiment, data=replace(experiment.data, spec=overrides.data))
    if overrides.encoder_from:
        experiment = replace(experiment, teacher=replace(experiment.teacher, encoder_from=overrides.encoder_from))
    return replace(experiment, board=overrides.board or experiment.board, name=overrides.name or experiment.name), space


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits of the parts' text: equal if and only if they are."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
