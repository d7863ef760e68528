"""What LCPAQ's steps leave in a network's folder, a file each; every record holds the key of what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from deploy.run.records.base import OMITTED
from deploy.run.records.keyed import KeyedRecord
from deploy.search.refined import RefinedRecord
from hil.measurement import Conditions
from hil.stats import LatencySummary
from nas.estimate import Estimate
from nas.lcpaq.trial import Fidelity, Settings
from nas.settings import STRICT

K = TypeVar("K", bound="KeyedRecord")
Perturbations = Mapping[str, Mapping[int, float]]
"""By layer and bits."""


@dataclass(frozen=True)
class SensitivityRecord(KeyedRecord):
    """How much the loss suffers from each layer's bits.

    Attributes:
        kind: of sensitivity, a key of `nas.lcpaq.sensitivity.SENSITIVITIES`.
        images: labelled ones that it was computed on.
        cpu_s: what that took, seconds of CPU.
        layers: perturbation by layer and weight bits.
        activations: by layer and bits of what it reads; None where these are all 8.
        loss: what it is of, of the user's own network; None: a run's task, on its labels.
    """

    kind: str
    images: int
    cpu_s: float
    layers: Perturbations
    activations: Perturbations | None = field(default=None, metadata=OMITTED)
    loss: str | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "sensitivity.json"
    COMMAND: ClassVar[str] = "lcpaq sensitivity"


@dataclass(frozen=True)
class ProbeRound:
    """A line of sensitivity.jsonl: by layer an estimate of its trace from each probe, and what they took."""

    samples: Mapping[str, tuple[float, ...]]
    cpu_s: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class LayerLatencies(KeyedRecord):
    """The latency of each layer, isolated, on the board."""

    conditions: Conditions
    layers: Mapping[str, Estimate]

    FILE: ClassVar[str] = "latency.json"
    COMMAND: ClassVar[str] = "lcpaq solve --measure-latency"


@dataclass(frozen=True)
class SolveRecord(KeyedRecord):
    """The integer program's answer.

    Attributes:
        limits, int8, totals: by cost (size_bits, bops, latency_us; totals also perturbation): what was allowed, what
            8 bits everywhere cost, and what the policy costs.
        seconds: of solving.
        bits: weight bits by layer.
        policy: as one text.
    """

    limits: Mapping[str, float]
    int8: Mapping[str, float]
    totals: Mapping[str, float]
    seconds: float
    bits: Mapping[str, int]
    policy: str

    FILE: ClassVar[str] = "solve.json"
    COMMAND: ClassVar[str] = "lcpaq solve"


@dataclass(frozen=True)
class ScoredPolicy:
    """A policy with the quantized network's score on images that the final score is not of."""

    policy: str
    score: float


@dataclass(frozen=True)
class RefinedPolicy:
    """A scored policy: where it comes from (program, greedy, frontier), and its costs by name."""

    origin: str
    policy: str
    costs: Mapping[str, float]
    score: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RefineRecord(KeyedRecord):
    """The policies around the program's answer that were scored.

    Attributes:
        metric: of the scores, in `unit`.
        images: that they are of.
        best: the policy that is kept; `origin`: where it comes from.
    """

    metric: str
    images: int
    scored: tuple[RefinedPolicy, ...]
    best: str
    origin: str
    unit: str = "%"

    FILE: ClassVar[str] = "refine.json"
    COMMAND: ClassVar[str] = "lcpaq refine"


@dataclass(frozen=True)
class RungAgreement:
    """How a cheap rung ranks against the last one, over `trials`; None where ranks are undefined."""

    rung: int
    trials: int
    tau_b: float | None
    spearman: float | None
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ProxyRecord(KeyedRecord):
    """The hyperparameters that the low-cost search selected for a policy's bits.

    Attributes:
        best: of the trials; `score`: its, in percent, on images that were held out of training.
        rungs: the ladder of fidelities, the cheapest first; `reached`: how many trials came to each.
        cpu_s: of all trials, seconds of CPU.
        grid_settings: how many settings an exhaustive grid has.
        agreement: of the cheap rungs with the last one.
    """

    policy: str
    best: Settings
    score: float
    rungs: tuple[Fidelity, ...]
    reached: tuple[int, ...]
    cpu_s: float
    grid_settings: int
    agreement: tuple[RungAgreement, ...]

    FILE: ClassVar[str] = "proxy.json"
    COMMAND: ClassVar[str] = "lcpaq proxy"


@dataclass(frozen=True)
class ShippedRecord(KeyedRecord):
    """The bundled network.

    Attributes:
        quantized_by: the run's scheme, the proxy search's settings, or the settings given.
        metric: of the validation scores fp32 (in float), int8 (at the policy), int8_all8 (8 bits everywhere), percent.
        bundle: its folder; `verified`: on the board.
        evaluation: key of each image's result in the run's evaluations/lcpaq-MODEL.jsonl; None where the board gives no
            outputs.
    """

    quantized_by: str
    metric: str
    fp32: float
    int8: float
    int8_all8: float
    size_bits: int
    latency: LatencySummary
    conditions: Conditions
    bundle: str
    verified: bool
    evaluation: str | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "shipped.json"
    COMMAND: ClassVar[str] = "lcpaq run"


@dataclass(frozen=True)
class ComparedWidth:
    """The network at some bits.

    Attributes:
        name: LCPAQ, or the bits that all layers have.
        policy: as one text.
        sha256: of the .tflite file.
        size_bits: of the weights, as LCPAQ counts them.
        file_bytes, packed_bytes: of the .tflite file, and packed.
        noise_db: of the noisiest output.
        metric: on validation images, in percent; None without labels.
    """

    name: str
    policy: str
    sha256: str
    size_bits: int
    file_bytes: int
    packed_bytes: int
    noise_db: float
    metric: float | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class WidthComparison(KeyedRecord):
    """What the policy's bits gain and lose.

    Attributes:
        noise_images: that the noise is over.
        widths: the policy's first.
        metric: its name; None without labels.
        float_metric: of the float network, in percent.
        validation_images: that it is over.
    """

    noise_images: int
    widths: tuple[ComparedWidth, ...]
    metric: str | None = field(default=None, metadata=OMITTED)
    float_metric: float | None = field(default=None, metadata=OMITTED)
    validation_images: int | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "widths.json"
    COMMAND: ClassVar[str] = "lcpaq run"


@dataclass(frozen=True)
class StepRecords:
    """The records that are in a model's folder, None where a step was not taken."""

    sensitivity: SensitivityRecord | None
    solve: SolveRecord | None
    refine: RefineRecord | None
    blocks: RefinedRecord | None
    proxy: ProxyRecord | None
    shipped: ShippedRecord | None
    widths: WidthComparison | None

    @classmethod
    def read(cls, folder: Path) -> StepRecords:
        def read(record: type[K]) -> K | None:
            path = folder / record.FILE
            return record.read(path) if path.exists() else None

        return cls(
            sensitivity=read(SensitivityRecord),
            solve=read(SolveRecord),
            refine=read(RefineRecord),
            blocks=read(RefinedRecord),
            proxy=read(ProxyRecord),
            shipped=read(ShippedRecord),
            widths=read(WidthComparison),
        )

    def to_json(self) -> dict[str, Any]:
        """By step, without those that were not taken."""
        records: dict[str, KeyedRecord | None] = vars(self)
        return {name: record.to_json() for name, record in records.items() if record}
