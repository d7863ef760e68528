"""The gate's verdict as the stages agree and search carry it."""

from __future__ import annotations

from dataclasses import replace

from deploy.latency.gate import check_gate, gate
from deploy.run.context import Context
from deploy.run.records import AgreementRecord, GateRecord, SearchRecord

RECORDS: dict[str, type[AgreementRecord] | type[SearchRecord]] = {"agree": AgreementRecord, "search": SearchRecord}
"""The record of each stage whose record holds the gate's verdict."""


def gate_of(context: Context) -> GateRecord:
    """The gate for the run's latency table, by the present threshold."""
    found = AgreementRecord.read(context.path / AgreementRecord.FILE)
    return gate(found.agreement, found.correction, context.experiment.agreement.tau, context.tau)


def settle(context: Context, stage: str) -> None:
    """The gate's present verdict, in the record of a stage that is done: another threshold redoes no stage.

    Raises `CheckFailed` for a search that was done under a lower threshold than the present one.
    """
    if stage not in RECORDS:
        return
    path = context.path / RECORDS[stage].FILE
    verdict, record = gate_of(context), RECORDS[stage].read(path)
    if stage == "search":
        check_gate(verdict)
    if record.gate != verdict:
        replace(record, gate=verdict).write(path)
