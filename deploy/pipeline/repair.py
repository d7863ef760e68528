"""Below the gate: measure blocks with their neighbours where the agreement's errors point, and agree again.

Only a table changes. Stages and settings are those of the run, whose later stages are done again; what the store holds
is not measured again, so a repair that was killed continues.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from deploy.latency.estimates import of_summary
from deploy.latency.interactions import FEWEST, REPAIRS, PairEffects, repairs_of
from deploy.latency.key import check_device
from deploy.latency.pairs import BlockPair, PairWriter, outside_us, planned
from deploy.latency.suspects import boundary_number
from deploy.latency.table import summaries
from deploy.latency.versions import Lineage, save_version
from deploy.pipeline.loop import loop
from deploy.pipeline.profiling import cells
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.models import quantized_teacher
from deploy.run.records import AgreementRecord, Repair, plain
from deploy.run.weights import of_run
from hil.errors import CheckFailed, UsageError
from hil.measurement import Measurement
from hil.store import Store
from nas.estimate import Estimate
from nas.space import Architecture
from nas.table import Table
from nas.training.threads import one_thread

SHARE = 0.085
"""Of the board time of the table, where no budget is given: a repair costs a tenth at most."""


def repair(context: Context, budget_s: float | None = None) -> Iterator[Progress]:
    """Repair the latency table until it agrees, nothing more stands out, or `budget_s` of board time is spent.

    Raises `CheckFailed` where the first pairs that were measured show nothing, `UsageError` for too small a budget.
    """
    yield from loop(context, "agree")
    left, first = SHARE * table_time(context).board_s if budget_s is None else budget_s, True
    while boundaries := _wanted(context):
        try:
            done = yield from _repaired(context, boundaries, left)
        except (CheckFailed, UsageError):
            if first:
                raise
            return
        left, first = left - done.board_s, False
        yield from loop(context, "agree")


@dataclass(frozen=True)
class TableTime:
    """What the measured entries of a latency table took of the board's time, and their sum, seconds."""

    board_s: float
    sum_s: float

    def seconds(self, latency_us: float) -> float:
        """Of the board's time for a graph of this latency: loading and compiling take longer for larger ones."""
        return self.board_s * latency_us / 1e6 / self.sum_s


def table_time(context: Context) -> TableTime:
    table = Table.load(context.path / "tables" / "latency.parquet")
    entries = {str(s): table.entries[s].value for s in cells(context.space) if table.entries[s].n}
    with Store(context.path / "measurements.sqlite") as store:
        board_s = sum(m.board_us for m in store.all() if m.model in entries) / 1e6
    return TableTime(board_s, sum(entries.values()) / 1e6)


def _wanted(context: Context) -> list[str]:
    """The boundaries to measure across: of the first suspect that has some left; none where the table agrees."""
    record = AgreementRecord.read(context.path / AgreementRecord.FILE)
    if record.agreement.tau_b >= record.gate.tau:
        return []
    known = {boundary for repaired in record.repairs for boundary in repaired.boundaries}
    left = ([b for b in suspect.boundaries if b not in known] for suspect in record.suspects)
    return next((boundaries for boundaries in left if boundaries), [])


def _repaired(context: Context, boundaries: list[str], budget_s: float) -> Generator[Progress, None, Repair]:
    """Make the repaired table the current one, and reopen the stages that are built on it."""
    space, tables, seed = context.space, context.path / "tables", context.experiment.seed
    table = Table.load(tables / "latency.parquet")
    before = AgreementRecord.read(context.path / AgreementRecord.FILE).agreement.tau_b

    time = table_time(context)

    def seconds(pair: BlockPair) -> float:
        return time.seconds(pair.entries_us(table) + outside_us(table, pair))

    drawn = planned(space, [boundary_number(space, name) for name in boundaries], budget_s, seconds, seed)
    plan = {boundary: pairs for boundary, pairs in drawn.items() if len(pairs) >= FEWEST}
    wanted = [pair for pairs in plan.values() for pair in pairs]
    if not wanted:
        raise UsageError(
            f"--repair: {budget_s:.1f} s of board time measure fewer than {FEWEST} pairs of neighbours across "
            f"{' and '.join(boundaries)}; give more, as --repair 1min"
        )
    measured, board_s = yield from _measured(context, table, wanted)
    again, found = table, dict[str, float]()
    for boundary, pairs in plan.items():
        effects = PairEffects.fitted(table, boundary, {pair: measured[pair] for pair in pairs}, seed)
        again, found = effects.applied(space, again), found | effects.named_us(space)
    if not found or not _helps(context, table, again):
        raise CheckFailed(
            f"{len(wanted)} pairs of neighbours across {' and '.join(boundaries)} show nothing that brings the table "
            "nearer to full models: nothing is repaired; measure longer ([profile] runs, rounds), or more models "
            "(--models)"
        )
    done = Repair(tuple(boundaries), len(wanted), round(board_s, 2), round(budget_s, 2), found, before)
    repairs = [plain(repaired) for repaired in (*repairs_of(table), done)]
    context.reopen_after("profile")
    again = replace(again, provenance={**table.provenance, REPAIRS: repairs})
    save_version(again, tables, "latency", "repaired", [Lineage.of(table).version])
    return done


def _helps(context: Context, table: Table, repaired: Table) -> bool:
    """Whether the repaired table is nearer to the agreement's full models, to which nothing was fitted."""
    samples = AgreementRecord.read(context.path / AgreementRecord.FILE).samples
    measured = np.array([sample.measured_us for sample in samples])
    sums = [[t.total(Architecture.parse(sample.subnet)) for sample in samples] for t in (table, repaired)]
    before, after = (float(np.std(measured - np.array(of_table))) for of_table in sums)
    return after < before


def _measured(
    context: Context, table: Table, pairs: list[BlockPair]
) -> Generator[Progress, None, tuple[Mapping[BlockPair, Estimate], float]]:
    """The pairs' latencies, by the profile's protocol, and the board's time, seconds."""
    folder = context.path / "pairs"
    with one_thread():
        origin = of_run(context, context.experiment.quantization.scheme)
        reference = quantized_teacher(context)
        writer = PairWriter(origin, reference, context.evaluation[:1], folder, context.keys["tables"], context.tail)
        jobs = [artifact.job() for artifact in writer.write(pairs)]

    def on_its_device(measurement: Measurement) -> None:
        check_device(table, measurement.conditions)

    settings = protocol(context.experiment.profile)
    done = yield from measure_with_progress(context, jobs, settings, "repair", "neighbours:", check=on_its_device)
    shutil.rmtree(folder)
    times = summaries(done)
    return {pair: of_summary(times[str(pair)]) for pair in pairs}, sum(m.board_us for m in done) / 1e6
