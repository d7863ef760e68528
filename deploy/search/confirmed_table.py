"""The main scheme's latency table, corrected by the agreement's models and by those that the search measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deploy.latency.active_record import chosen_networks
from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.correction import correct
from deploy.latency.versions import Lineage, save_version
from deploy.run.context import Context
from deploy.run.records import AgreementRecord, Correction
from deploy.search.candidate import Candidate
from deploy.search.cost_tables import CONFIRMED
from deploy.search.side_by_side import MeasuredModel
from nas.search.union import CostTables
from nas.space import Architecture
from nas.table import Table
from nas.training.threads import one_thread


def at_the_agreement(candidate: Candidate, model: MeasuredModel, teacher_us: float) -> MeasuredNetwork | None:
    """A measured model at the speed that the board had when the teacher took `teacher_us`; None if it failed.

    A board that is 3 % slower since is so for the teacher too: shares of its latency do not show it.
    """
    if model.share is None or model.halves is None:
        return None
    first, second = model.halves
    halves_us = teacher_us * first, teacher_us * second
    return MeasuredNetwork(candidate.architecture, float("nan"), teacher_us * model.share.value, halves_us)


def corrected(
    context: Context, agreed: AgreementRecord, table: Table, main: CostTables, measured: Sequence[MeasuredNetwork]
) -> tuple[CostTables, Correction]:
    """`main` with the latency `table` of the profile corrected anew; fitted to all, evaluated on the agreement's."""
    samples = [
        MeasuredNetwork(Architecture.parse(s.subnet), s.additive_us, s.measured_us, s.halves_us) for s in agreed.samples
    ]
    seen = {sample.architecture for sample in samples}
    others = [*chosen_networks(context.path, context.keys["profile"]), *measured]
    more = {network.architecture: network for network in others if network.architecture not in seen}
    with one_thread():  # the last bits of sums, and so what is asked next, depend on the number of threads
        latency, correction, _ = correct(context.space, table, samples, list(more.values()))
    tables = {**main.tables, "latency": latency}
    return replace(main, tables=tables, outside={**main.outside, "latency": correction.constant_us}), correction


def keep(context: Context, table: Table, main: CostTables) -> None:
    """Write the corrected table into the run's folder, as a version made of the profile's `table`."""
    latency, tables = main.tables["latency"], context.path / "tables"
    save_version(latency, tables, CONFIRMED, "corrected", [Lineage.of(table).version])
