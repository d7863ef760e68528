"""search.json: the selected models, and the Pareto front that they are on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records.agreement import GateRecord
from deploy.run.records.base import OMITTED, Record
from hil.errors import UsageError
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
    """

    name: str
    subnet: str
    nsr: float
    size_bits: float
    predicted_us: float
    pareto_front_size: int
    scheme: str | None = field(default=None, metadata=OMITTED)
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
class SearchRecord(Record):
    """What the stage `search` selected.

    Attributes:
        selected: one model per budget, in the budgets' order.
        teacher_size_bits: the INT8 teacher's, of which budgets are shares.
        outside_blocks: of the main scheme.
        schemes: all that were searched, the main one first; None where there is one.
    """

    selected: tuple[SelectedModel, ...]
    gate: GateRecord
    teacher_size_bits: int
    outside_blocks: OutsideBlocks
    pareto_front: tuple[ParetoPoint, ...]
    schemes: tuple[str, ...] | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "search.json"
    COMMAND: ClassVar[str] = "search"

    def model(self, name: str) -> SelectedModel:
        """The budget's; `UsageError` where there is none."""
        models = {entry.name: entry for entry in self.selected}
        if name not in models:
            raise UsageError(f"no selected model '{name}'; there are {', '.join(models)}")
        return models[name]
