"""tables/validations.json: what was demanded of a latency table on a device that changed, and whether it held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploy.run.records import Record
from hil.errors import CheckFailed, UsageError
from hil.measurement import Conditions
from nas.settings import STRICT

LEAST_ENTRIES = 3  # ranks of fewer say nothing


@dataclass(frozen=True)
class Demand:
    """What is demanded of a table.

    Attributes:
        entries: how many are measured again.
        tolerance: largest distance of the median ratio new / old from 1.
        tau: least tau-b between old and new latencies.
    """

    entries: int = 30
    tolerance: float = 0.02
    tau: float = 0.95
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.entries < LEAST_ENTRIES or not self.tolerance > 0 or not -1 <= self.tau <= 1:
            raise UsageError(
                f"--entries {self.entries} --tolerance {self.tolerance} --tau {self.tau}: give {LEAST_ENTRIES} entries "
                "or more, a share above 0, and a tau-b from -1 to 1"
            )


@dataclass(frozen=True)
class TableValidation:
    """A validation that was concluded.

    Attributes:
        entries: how many were measured again.
        ratio: median of new / old latency.
        ci95: its 95 % bootstrap interval.
        tau_b: between old and new latencies.
        holds: whether that meets the demand.
        demand: of the table.
        parent: version of the table.
        changed: in words what differs from the conditions that the table belonged to.
        conditions: at the time of the validation.
        when: ISO 8601, UTC.
    """

    entries: int
    ratio: float
    ci95: tuple[float, float]
    tau_b: float
    holds: bool
    demand: Demand
    parent: str
    changed: tuple[str, ...]
    conditions: Conditions
    when: str
    __pydantic_config__ = STRICT

    def require_held(self) -> None:
        """`CheckFailed` where it did not hold, with what to do."""
        if not self.holds:
            demand = self.demand
            raise CheckFailed(
                f"the latency table does not hold any more: {self.entries} entries measured again have a median "
                f"ratio {self.ratio:.3f} (allowed: 1 ± {demand.tolerance:g}) and tau-b {self.tau_b:.3f} "
                f"(at least {demand.tau:g}): measure again: delete tables/latency.parquet, run `hilnas lut latency`"
            )


@dataclass(frozen=True)
class ValidationsRecord(Record):
    """All validations of a run's table that were concluded, oldest first."""

    validations: tuple[TableValidation, ...] = ()

    FILE: ClassVar[str] = "validations.json"
    COMMAND: ClassVar[str] = "lut latency validate"
