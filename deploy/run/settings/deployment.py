"""What is deployed and measured: the settings [quantization], [deploy], [profile], [agreement] and [[budgets]]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deploy.compile.scheme import QuantizationScheme
from hil.reservation import seconds_of
from nas.errors import ConfigError
from nas.quant.scheme import FewBits, Granularity, Rounding, Scheme
from nas.quant.tails import TailChoice
from nas.settings import STRICT

TEACHER, TEACHER_PLUS = "teacher", "teacher_plus"
"""Names of models beside the budgets': the teacher, and the teacher trained on by the selected models' recipe."""


@dataclass(frozen=True)
class Quantization:
    """How networks are quantized (nas.quant.scheme), and on how many images that is calibrated and evaluated.

    Attributes:
        granularity: weight scales per output channel, or per tensor.
        calibration_images: training images that the ranges of activations are taken from.
        evaluation_images: other training images that the NSR is computed on.
        observer: how a range follows from an activation's values: "minmax", "percentile", "percentile 99.9", "mse"
            (`nas.quant.ranges`).
        equalize: whether channels are rescaled across neighbouring convolutions first.
        bias_correction: whether the mean error is subtracted from every bias.
        few_bits: range of weights of fewer than 8 bits: of their own, or symmetric about zero.
        rounding: of weights: to nearest; "adaptive": those of fewer than 8 bits to the least error of each layer's
            output; "adaptive all": so are those of 8 bits.
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
class Deploy:
    """How full networks end in their files.

    Attributes:
        tail: one of `nas.quant.tails`, or "auto": each is measured on the board with the teacher, once, and the fastest
            is kept whose metric is within the tolerance. None: that of the board's target (`Experiment.on`), the class
            map where it names none.
        tolerance: by how many points of the metric a tail may be below the class map's.
        golden_images: how many validation images a bundle has with their golden outputs.
    """

    tail: TailChoice | None = None
    tolerance: float = 0.5
    golden_images: int = 8
    # `deploy.run.keys` has both where they count, and the target's tail in that one's place
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"tail", "golden_images"})
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ConfigError(f"deploy.tolerance {self.tolerance}: give points of the metric, 0 or more")
        if self.golden_images < 1:
            raise ConfigError(f"deploy.golden_images {self.golden_images}: a bundle proves itself by at least 1")


@dataclass(frozen=True)
class Measuring:
    """How long each model is run on the board; see hil.measure.MeasureProtocol.

    Attributes:
        warmup_runs: inferences before the timed ones, at least; more while they are not steady.
        runs: timed inferences in each round.
        rounds: times that each model is loaded, in turns with all others.
    """

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
        measuring: how long each of them is run; the search measures its candidates by it, too.
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
    """A model to find: the least NSR within shares of the teacher's latency and size.

    Attributes:
        name: the model's, too.
        latency: the most, as a share of the INT8 teacher's, both measured; None: any.
        size: the most, as a share of the INT8 teacher's weights; None: any.
        bits: the widths that its blocks may have; None: all of the space.
    """

    name: str
    latency: float | None = None
    size: float | None = None
    bits: tuple[int, ...] | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.latency is None and self.size is None:
            raise ConfigError(f"budget '{self.name}': give latency, size or both, as a share of the teacher's")
        if not self.name.isidentifier() or self.name in (TEACHER, TEACHER_PLUS):
            raise ConfigError(
                f"budget '{self.name}': a name is letters, digits and _, and neither '{TEACHER}' nor '{TEACHER_PLUS}'"
            )
