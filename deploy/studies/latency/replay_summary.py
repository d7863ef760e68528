"""The outcomes of a replay summarized: as a record, as a table, and in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from rich.table import Table as RichTable

from deploy.latency.agreement import comparison, tau_b
from deploy.latency.context_model import BlockLatencies, ContextModel
from deploy.run.records import Compared
from deploy.studies.latency.record import Recorded
from deploy.studies.latency.replay import RecordedSource, TableEvaluator
from deploy.studies.latency.replay_record import (
    MethodSummary,
    ReplayOutcome,
    ReplayRecord,
    SeedSpread,
    TableAgreement,
)

COLUMNS = ("blocks", "models", "board s", "tau-b", "corrected", "error %", "hypervolume")
DIGITS = (0, 0, 0, 4, 4, 2, 4)


def summarized(recorded: Recorded, outcomes: Sequence[ReplayOutcome]) -> ReplayRecord:
    """All outcomes, how each method ended, and the agreement of the table that measured everything."""
    halves = np.array([n.halves_us for n in RecordedSource(recorded).held_out])
    return ReplayRecord(
        recorded.space.name,
        recorded.size,
        recorded.scheme,
        recorded.conditions,
        len(recorded.rows_of("block")),
        len(halves),
        tau_b(halves[:, 0], halves[:, 1]),
        len({o.seed for o in outcomes}),
        table_agreement(recorded),
        {
            method: _method([o for o in outcomes if o.method == method and o.ended])
            for method in dict.fromkeys(o.method for o in outcomes)
        },
        tuple(outcomes),
    )


def _method(ended: Sequence[ReplayOutcome]) -> MethodSummary:
    return MethodSummary(*(_spread([getattr(o, field.name) for o in ended]) for field in fields(MethodSummary)))


def _spread(values: Sequence[float]) -> SeedSpread:
    low, high = np.quantile(values, [0.05, 0.95])
    return SeedSpread(float(np.mean(values)), float(low), float(high))


def table_agreement(recorded: Recorded) -> TableAgreement:
    """The table of all blocks against the held-out networks."""
    source = RecordedSource(recorded)
    blocks = BlockLatencies.of_model(TableEvaluator.of(source).full)
    architectures = [n.architecture for n in source.held_out]
    pool = [n for n, _ in source.pool.values()]

    def compared(predicted: Sequence[float]) -> Compared:
        networks = [replace(n, additive_us=us) for n, us in zip(source.held_out, predicted, strict=True)]
        return comparison(networks, source.nsr, 0, 10)

    return TableAgreement(
        compared([sum(source.every_block[s].value for s in a.subnets) for a in architectures]),
        compared(blocks.sums(architectures).tolist()),
        compared(ContextModel.fitted(source.space, blocks, pool).predict_us(architectures).tolist()),
    )


def table_of_methods(record: ReplayRecord) -> RichTable:
    """One row per method: the mean over seeds, with the middle 90 % where there are several."""
    table = RichTable(title=f"{record.held_out} held-out models, noise ceiling {record.ceiling_tau_b:.4f}")
    for column in ("method", *COLUMNS):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, summary in record.methods.items():
        ranges = [getattr(summary, field.name) for field in fields(summary)]
        table.add_row(method, *(_cell(spread, digits) for spread, digits in zip(ranges, DIGITS, strict=True)))
    return table


def _cell(spread: SeedSpread, digits: int) -> str:
    between = f" ({spread.p5:.{digits}f} - {spread.p95:.{digits}f})" if spread.p5 < spread.p95 else ""
    return f"{spread.mean:.{digits}f}{between}"


def agreement_text(compared: Compared) -> str:
    """A comparison in one line."""
    a, (low, high) = compared.agreement, compared.agreement.ci95
    return (
        f"tau-b {a.tau_b:.4f} [{low:.4f}, {high:.4f}], Spearman {a.spearman:.4f}, mean error {a.error_percent:.2f} % "
        f"after a constant of {a.offset_us:.0f} us, regret at most {compared.regret.worst_percent:.1f} %"
    )
