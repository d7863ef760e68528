"""active.json: what a budget of board time was spent on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from deploy.latency.active import ActiveStep
from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.predictor import BlockPriorStd
from deploy.run.records import Record
from nas.settings import STRICT
from nas.space import Architecture


@dataclass(frozen=True)
class ActiveNetwork:
    """A full network that was measured: median, and the medians of two halves of the samples, microseconds."""

    subnet: str
    measured_us: float
    halves_us: tuple[float, float]
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        Architecture.parse(self.subnet)

    @property
    def network(self) -> MeasuredNetwork:
        return MeasuredNetwork(Architecture.parse(self.subnet), float("nan"), self.measured_us, self.halves_us)


@dataclass(frozen=True)
class ActiveRecord(Record):
    """How active measuring ended.

    Attributes:
        key: of the stage `profile`, whose settings it was measured by.
        ended: why no more was measured.
        board_s: board time, seconds.
        blocks: how many were measured.
        networks: those that were measured.
        expected_loss: expected loss of hypervolume, as a share, of choosing by the table.
        expected_tau_b: expected tau-b between the table's and the true ranks.
        prior_std: of the model that the table's entries were predicted by.
    """

    key: str
    ended: str
    board_s: float
    blocks: int
    networks: tuple[ActiveNetwork, ...]
    expected_loss: float
    expected_tau_b: float
    prior_std: BlockPriorStd

    FILE: ClassVar[str] = "active.json"
    COMMAND: ClassVar[str] = "lut latency"

    @classmethod
    def of(cls, step: ActiveStep, key: str) -> ActiveRecord:
        observed, fronts = step.observed, step.fronts
        return cls(
            key,
            step.ended,
            round(observed.seconds, 2),
            len(observed.blocks),
            tuple(ActiveNetwork(str(n.architecture), n.measured_us, n.halves_us) for n in observed.networks),
            fronts.expected_loss,
            fronts.expected_tau,
            step.model.prior_std,
        )


def chosen_networks(folder: Path, key: str) -> list[MeasuredNetwork]:
    """The full networks that active measuring chose in the run of `folder` under `key`; empty if there are none."""
    path = folder / ActiveRecord.FILE
    if not path.exists():
        return []
    record = ActiveRecord.read(path)
    return [entry.network for entry in record.networks] if record.key == key else []
