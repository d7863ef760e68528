"""search.json: the selected models, and the Pareto front that they are on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records.agreement import Correction, GateRecord
from deploy.run.records.base import OMITTED, Record
from hil.errors import UsageError
from nas.estimate import Estimate
from nas.settings import STRICT
from nas.space import Architecture


@dataclass(frozen=True)
class SelectedModel:
    """The best model within a budget.

    Attributes:
        name: the budget's.
        nsr: sum over its blocks; size_bits, predicted_us: of the full model.
        pareto_front_size: architectures on the exact front that the model was selected from.
        scheme: how it is quantized; None where the experiment has one scheme for all.
        share: of the teacher's latency, measured before retraining; None where the table alone decided.
    """

    name: str
    subnet: str
    nsr: float
    size_bits: float
    predicted_us: float
    pareto_front_size: int
    scheme: str | None = field(default=None, metadata=OMITTED)
    share: Estimate | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT

    @property
    def architecture(self) -> Architecture:
        return Architecture.parse(self.subnet)


@dataclass(frozen=True)
class ParetoPoint:
    """An architecture of the exact front over (NSR, latency); `scheme` as a selected model's."""

    subnet: str
    nsr: float
    latency_us: float
    scheme: str | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class OutsideBlocks:
    """Size and latency of what no choice changes: stem, head, graph inputs and outputs."""

    size_bits: int
    latency_us: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MeasuredCandidate:
    """A full model that was measured beside the teacher before one was selected.

    Microseconds are at the speed of the agreement: the share of the teacher's latency, times its latency there.

    Attributes:
        round: in which it was measured, from 1; predicted_us: by the table that proposed it.
        share: of the teacher's latency, with its 95 % interval; None if the model failed on the board.
        kept: whether the whole interval is within the budget.
        failure: why it has no latency.
    """

    subnet: str
    round: int
    predicted_us: float
    measured_us: float | None
    share: Estimate | None
    kept: bool
    scheme: str | None = field(default=None, metadata=OMITTED)
    failure: str | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ConfirmedBudget:
    """A budget of latency and the candidates measured for it, best first.

    Attributes:
        limit: the most that a model may take, as a share of the teacher's latency; limit_us: at the agreement's speed.
    """

    name: str
    limit: float
    limit_us: float
    candidates: tuple[MeasuredCandidate, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ConfirmRound:
    """Models measured side by side, and how the main scheme's table was corrected after them.

    Attributes:
        models: how many, the teacher not counted; rounds: of measuring.
        teacher_us: the teacher's median then.
    """

    models: int
    rounds: int
    teacher_us: float
    correction: Correction
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ConfirmRecord:
    """How the selected models were confirmed by measurement.

    Attributes:
        budgets: those of latency, in their order.
        rounds: in their order; the last one's correction is that of `tables/latency-confirmed.parquet`.
    """

    budgets: tuple[ConfirmedBudget, ...]
    rounds: tuple[ConfirmRound, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MissedBudget:
    """A budget without a model; `reason`: in a sentence, with what to do."""

    name: str
    reason: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SearchRecord(Record):
    """What the stage `search` selected.

    Attributes:
        selected: one model per budget, in the budgets' order; none for one of `missed`.
        teacher_size_bits: the INT8 teacher's, of which budgets are shares.
        outside_blocks: of the main scheme.
        schemes: all that were searched, the main one first; None where there is one.
        confirmed: None where the table alone decided: no budget of latency, or none was to be measured.
    """

    selected: tuple[SelectedModel, ...]
    gate: GateRecord
    teacher_size_bits: int
    outside_blocks: OutsideBlocks
    pareto_front: tuple[ParetoPoint, ...]
    schemes: tuple[str, ...] | None = field(default=None, metadata=OMITTED)
    confirmed: ConfirmRecord | None = field(default=None, metadata=OMITTED)
    missed: tuple[MissedBudget, ...] = field(default=(), metadata=OMITTED)

    FILE: ClassVar[str] = "search.json"
    COMMAND: ClassVar[str] = "search"

    def model(self, name: str) -> SelectedModel:
        """The budget's; `UsageError` where there is none."""
        models = {entry.name: entry for entry in self.selected}
        if name not in models:
            raise UsageError(f"no selected model '{name}'; there are {', '.join(models)}")
        return models[name]
