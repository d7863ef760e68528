"""The gate before the search: a latency table that does not rank full models as the board does is not searched."""

from __future__ import annotations

import math

from deploy.run.records import Correction, GateRecord, RankStatistics
from hil.errors import CheckFailed, UsageError

PLAIN, CORRECTED = "the table as measured", "the table with feedback, on models left out"


def gate(
    agreement: RankStatistics, correction: Correction, configured: float, asked: float | None = None
) -> GateRecord:
    """The verdict on the table that the search uses; `asked`: --tau, in place of the configuration's threshold."""
    tau_b, table = (correction.tau_b_held_out, CORRECTED) if correction.applied else (agreement.tau_b, PLAIN)
    tau = configured if asked is None else asked
    return GateRecord(tau_b, table, tau, override=tau != configured, holds=tau_b >= tau)


def check_gate(verdict: GateRecord) -> None:
    """`CheckFailed` unless it holds."""
    if not verdict.holds:
        accepting = math.floor(100 * verdict.tau_b) / 100
        raise CheckFailed(
            f"the latency table is below the gate: tau-b {verdict.tau_b:.4f} ({verdict.table}), at least "
            f"{verdict.tau:g} is asked for; measure more (runs, rounds, --models), or accept it with "
            f"--tau {accepting:g}"
        )


def check_threshold(asked: float | None) -> float | None:
    """`asked`, --tau; `UsageError` if it is no rank correlation."""
    if asked is not None and not -1 <= asked <= 1:
        raise UsageError(f"--tau {asked:g}: a rank correlation is between -1 and 1")
    return asked


def gate_text(verdict: GateRecord) -> str:
    """One line for people."""
    whose = " (--tau, not the configuration's)" if verdict.override else ""
    holds = "holds" if verdict.holds else "DOES NOT HOLD"
    return f"gate: tau-b {verdict.tau_b:.4f} of {verdict.table}, at least {verdict.tau:g}{whose}: {holds}"
