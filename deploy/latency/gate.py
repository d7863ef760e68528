"""The gate before the search: a latency table that does not rank whole models as the board does is not searched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hil.errors import CheckFailed, UsageError

PLAIN, CORRECTED = "the table as measured", "the table with feedback, on models left out"


@dataclass(frozen=True)
class Gate:
    """Does the table that the search uses agree with the board?

    Attributes:
        tau_b: of the table that is used; `of` says which.
        tau: the least that is accepted; `override`: it is the command line's, not the configuration's.
    """

    tau_b: float
    of: str
    tau: float
    override: bool

    @property
    def holds(self) -> bool:
        return self.tau_b >= self.tau

    def record(self) -> dict[str, object]:
        return {**asdict(self), "holds": self.holds}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Gate:
        return cls(record["tau_b"], record["of"], record["tau"], record["override"])

    def check(self) -> None:
        """`CheckFailed` unless it holds."""
        if not self.holds:
            accepting = math.floor(100 * self.tau_b) / 100
            raise CheckFailed(
                f"the latency table is below the gate: tau-b {self.tau_b:.4f} ({self.of}), at least {self.tau:g} is "
                f"asked for; measure more (runs, rounds, --models), or accept it with --tau {accepting:g}"
            )


def check_threshold(asked: float | None) -> float | None:
    """`asked`, --tau; `UsageError` if it is no rank correlation."""
    if asked is not None and not -1 <= asked <= 1:
        raise UsageError(f"--tau {asked:g}: a rank correlation is between -1 and 1")
    return asked


def gate(judged: Mapping[str, Any], configured: float, asked: float | None = None) -> Gate:
    """The gate for what agreement.json says; `asked`: --tau, in place of the configuration's threshold."""
    corrected = judged["correction"]["applied"]
    tau_b = judged["correction"]["tau_b_held_out"] if corrected else judged["agreement"]["tau_b"]
    tau = configured if asked is None else asked
    return Gate(tau_b, CORRECTED if corrected else PLAIN, tau, override=tau != configured)


def gate_text(record: Mapping[str, Any]) -> str:
    """One line for people."""
    whose = " (--tau, not the configuration's)" if record["override"] else ""
    verdict = "holds" if record["holds"] else "DOES NOT HOLD"
    return f"gate: tau-b {record['tau_b']:.4f} of {record['of']}, at least {record['tau']:g}{whose}: {verdict}"
