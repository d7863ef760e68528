"""The gate's verdict as the stages agree and search carry it."""

from __future__ import annotations

from deploy.formats.files import write_json
from deploy.latency.gate import Gate, gate
from deploy.run.context import Context

RECORDS = {"agree": "agreement", "search": "search"}
"""The record of each stage whose record holds the gate's verdict."""


def gate_of(context: Context) -> Gate:
    """The gate for the run's latency table, by the present threshold."""
    return gate(context.record("agreement"), context.experiment.agreement.tau, context.tau)


def settle(context: Context, stage: str) -> None:
    """The gate's present verdict, in the record of a stage that is done: another threshold redoes no stage.

    Raises `CheckFailed` for a search that was done under a lower threshold than the present one.
    """
    if stage not in RECORDS:
        return
    verdict, record = gate_of(context), context.record(RECORDS[stage])
    if stage == "search":
        verdict.check()
    if record.get("gate") != verdict.record():
        write_json(context.path / f"{RECORDS[stage]}.json", record | {"gate": verdict.record()})
