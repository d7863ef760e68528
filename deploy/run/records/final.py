"""final.json and summary.json: the final models as they were measured, and the run in one file.

Others read these two, so their names on disk stay: a model's scores are `KEY_fp32`, `KEY_int8` and `KEY_held_out`
there, KEY being the metric's key, miou or top1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from deploy.run.records.agreement import Correction, GateRecord, Interval
from deploy.run.records.base import OMITTED, Record, plain_fields
from deploy.run.records.search import MissedBudget
from hil.measurement import Conditions, Measurement
from hil.stats import LatencySummary
from nas.estimate import Estimate
from nas.settings import STRICT

SCORES = ("fp32", "int8", "held_out")
"""What a model is scored by: `score_NAME` in a record, KEY_NAME on disk."""


@dataclass(frozen=True)
class LatencyRecord:
    """A latency in microseconds: median and its 95 % interval, 90th percentile, over `n` runs.

    Attributes:
        measured_at: when its first sample was taken, ISO 8601 in UTC; None in a record of an earlier version.
    """

    median: float
    p90: float
    n: int
    ci95: Interval
    measured_at: str | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT

    @classmethod
    def of(cls, latency: LatencySummary, rounds: Iterable[Measurement]) -> LatencyRecord:
        """`rounds`: what the summary is of."""
        first = min(m.started_at for m in rounds)
        return cls(latency.median_us, latency.p90_us, latency.n, latency.ci95_us, first)


@dataclass(frozen=True)
class PlacementRecord:
    """The share of a model's multiply-accumulates that a target is expected to run off its fast place."""

    target: str
    fast_place: str
    off_share: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class BoardScore:
    """A model's metric from the board's own answers to the validation images.

    Attributes:
        score: in percent, with the interval that the images leave.
        against_int8: less that of the integer simulation on the same images, in points.
        failed: the images that the board had no output for; they count in neither.
    """

    score: Estimate
    against_int8: Estimate
    failed: tuple[str, ...] = field(default=(), metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ModelRecord:
    """A final model.

    Attributes:
        subnet: the architecture, or "teacher".
        metric: key of the score's metric (miou, top1); `score_fp32`, `score_int8`: in percent, on validation images.
        requested_bits, stored_bits, executed_bits: widths of the weights; requested: None where the file has none.
        placement: by the target's rules; None where the board names no target.
        predicted_us: the tables' prediction; None of the teacher.
        scheme: how it is quantized; None where the experiment has one scheme for all.
        score_held_out: of a selected model, INT8 on held-out training images, in percent: what the bundle is chosen by.
        against_teacher_plus: of a selected model, `score_int8` less that of the teacher trained on, in points.
        board: what the board itself scored; None where it gives no outputs (a replay, benchmark_model).
    """

    name: str
    subnet: str
    metric: str
    score_fp32: float
    score_int8: float
    size_bits: int
    requested_bits: tuple[int, ...] | None
    stored_bits: tuple[int, ...]
    executed_bits: tuple[int, ...]
    placement: PlacementRecord | None
    macs: int
    predicted_us: float | None
    latency_us: LatencyRecord
    scheme: str | None = field(default=None, metadata=OMITTED)
    score_held_out: float | None = field(default=None, metadata=OMITTED)
    against_teacher_plus: Estimate | None = field(default=None, metadata=OMITTED)
    board: BoardScore | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT

    def to_json(self) -> dict[str, Any]:
        """The scores under the metric's key."""
        names = {f"score_{kind}": f"{self.metric}_{kind}" for kind in SCORES}
        return {names.get(k, k): v for k, v in plain_fields(self).items() if k != "metric"}

    @staticmethod
    def arranged(raw: Any) -> Any:
        """The constructor's arguments from the file's: the metric is what its scores are called by."""
        if not isinstance(raw, Mapping):
            return raw
        metric = next((key.removesuffix("_int8") for key in raw if key.endswith("_int8")), None)
        if metric is None:
            return raw
        names = {f"{metric}_{kind}": f"score_{kind}" for kind in SCORES}
        return {"metric": metric, **{names.get(key, key): value for key, value in raw.items()}}


@dataclass(frozen=True)
class BundleRecord:
    """The shipped bundle, and the latency that its verifier measured on the board, microseconds."""

    path: str
    model: str
    verified: bool
    board: str
    latency_us: Mapping[str, float] | None
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class BudgetVerdict:
    """Whether a selected model keeps a limit of its budget.

    Attributes:
        name: the budget's, and the model's.
        quantity: latency or size.
        limit: the most that it may be, as a share of the teacher's.
        share: what it is: a latency measured beside the teacher's, with its 95 % interval; a size exactly.
        kept: the interval does not lie above the limit.
        decided: nor does the limit lie within the interval.
    """

    name: str
    quantity: Literal["latency", "size"]
    limit: float
    share: Estimate
    __pydantic_config__ = STRICT

    @property
    def kept(self) -> bool:
        return self.share.low <= self.limit

    @property
    def decided(self) -> bool:
        return not self.share.low <= self.limit < self.share.high

    def to_json(self) -> dict[str, Any]:
        return {**plain_fields(self), "kept": self.kept}

    @staticmethod
    def arranged(raw: Any) -> Any:
        """The constructor's arguments from the file's: whether it is kept follows from the rest."""
        return {k: v for k, v in raw.items() if k != "kept"} if isinstance(raw, Mapping) else raw


def _parts(raw: dict[str, Any]) -> dict[str, Any]:
    """A record's file with its models and budgets as their constructors take them."""
    arranged: dict[str, Callable[[Any], Any]] = {
        "teacher": ModelRecord.arranged,
        "teacher_plus": ModelRecord.arranged,
        "models": _each(ModelRecord.arranged),
        "budgets": _each(BudgetVerdict.arranged),
    }
    return raw | {name: change(raw[name]) for name, change in arranged.items() if name in raw}


def _each(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda raw: [change(one) for one in raw] if isinstance(raw, Sequence) else raw


@dataclass(frozen=True)
class FinalRecord(Record):
    """What the stage `ship` measured and bundled.

    Attributes:
        models: the teacher first, then a model per budget.
        teacher_plus: the teacher trained on by the selected models' recipe, which they have to be better than.
        budgets: each limit of each budget.
    """

    models: tuple[ModelRecord, ...]
    teacher_plus: ModelRecord
    budgets: tuple[BudgetVerdict, ...]
    conditions: Conditions
    bundle: BundleRecord

    FILE: ClassVar[str] = "final.json"
    COMMAND: ClassVar[str] = "loop"
    SCHEMA: ClassVar[int] = 2

    @classmethod
    def arranged(cls, raw: dict[str, Any]) -> dict[str, Any]:
        return _parts(raw)


@dataclass(frozen=True)
class DataSummary:
    """The data set, image size (H, W), number of classes and of images."""

    spec: str
    size: tuple[int, int]
    classes: int
    train: int
    val: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MetricRecord:
    """What models are evaluated by: `name` for people, `key` in records."""

    name: str
    key: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SpaceSummary:
    """The search space; `subnets` over all blocks."""

    name: str
    digest: str
    subnets: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class AgreementSummary:
    """What agreement.json says of the latency table, in short."""

    tau_b: float
    ci95: Interval
    n_models: int
    spearman: float
    ceiling_tau_b: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SubnetCounts:
    """Subnets that were compiled, measured, and found equal to the integer simulation byte for byte."""

    subnets_compiled: int
    subnets_measured: int
    subnets_exact_parity: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Summary(Record):
    """A finished run.

    Attributes:
        seconds: wall time by stage, and their `total`.
        missed: budgets for which there is no model.
    """

    name: str
    data: DataSummary
    task: str
    metric: MetricRecord
    space: SpaceSummary
    teacher: ModelRecord
    teacher_plus: ModelRecord
    models: tuple[ModelRecord, ...]
    budgets: tuple[BudgetVerdict, ...]
    agreement: AgreementSummary
    correction: Correction
    gate: GateRecord
    counts: SubnetCounts
    bundle: BundleRecord
    conditions: Conditions
    seconds: Mapping[str, float]
    missed: tuple[MissedBudget, ...] = field(default=(), metadata=OMITTED)

    FILE: ClassVar[str] = "summary.json"
    COMMAND: ClassVar[str] = "report"
    SCHEMA: ClassVar[int] = 2

    @property
    def all_models(self) -> tuple[ModelRecord, ...]:
        """The teacher, the teacher trained on, then a model per budget."""
        return (self.teacher, self.teacher_plus, *self.models)

    @classmethod
    def arranged(cls, raw: dict[str, Any]) -> dict[str, Any]:
        return _parts(raw)
