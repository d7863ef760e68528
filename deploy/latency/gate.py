"""The gate before the search: a latency table that does not rank full networks as the board does is not searched."""

from __future__ import annotations

import math

from deploy.run.records import Correction, GateRecord, RankStatistics
from hil.errors import CheckFailed, UsageError

PLAIN, CORRECTED = "the table as measured", "the corrected table, on models left out of the fit"


def check_threshold(asked: float | None) -> float | None:
    """`asked`, --tau; `UsageError` if it is no rank correlation."""
    if asked is not None and not -1 <= asked <= 1:
        raise UsageError(f"--tau {asked:g}: a rank correlation is between -1 and 1")
    return asked


def gate(
    agreement: RankStatistics, correction: Correction, configured: float, asked: float | None = None
) -> GateRecord:
    """The verdict on the table that the search uses; `asked`: --tau, in place of the configuration's threshold."""
    tau_b = correction.tau_b_held_out if correction.applied else agreement.tau_b
    tau = configured if asked is None else asked
    table = CORRECTED if correction.applied else PLAIN
    return GateRecord(tau_b, table, tau, override=tau != configured, holds=tau_b >= tau)


def check_gate(gate: GateRecord) -> None:
    """`CheckFailed` unless it holds."""
    if not gate.holds:
        accepting = math.floor(100 * gate.tau_b) / 100
        raise CheckFailed(
            f"the latency table is below the gate: tau-b {gate.tau_b:.4f} ({gate.table}), at least {gate.tau:g} is "
            f"required; repair it where `hilnas agree` names a block boundary (`hilnas lut latency --repair`), measure "
            f"more (runs, rounds, --models), or accept it with --tau {accepting:g}"
        )


def gate_text(gate: GateRecord) -> str:
    """The verdict in one line."""
    whose = " (--tau, not the configuration's)" if gate.override else ""
    verdict = "holds" if gate.holds else "DOES NOT HOLD"
    return f"gate: tau-b {gate.tau_b:.4f} of {gate.table}, at least {gate.tau:g}{whose}: {verdict}"
