"""Budgets of latency are kept by measurement: the best candidates are measured whole before one is selected.

A table's sums propose; the exact search puts its best models right at the limit, where the error of a sum decides. So
the first few under each budget are compiled and measured as full models, in turns with the teacher. What was measured
corrects the table, beside the agreement's models, and the search is asked again, until its best model has been
measured itself and keeps the budget.

It does where the whole 95 % interval of its share of the teacher's latency is within the budget. By the median, a model
at the limit would be over it in every second later measurement; so what keeps its budget here is not above it when
`ship` measures again, and the price is the width of an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TypeAlias

from deploy.compile.scheme import QuantizationScheme
from deploy.latency.key import check_device
from deploy.latency.table import measured_as
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.records import (
    AgreementRecord,
    ConfirmedBudget,
    ConfirmRecord,
    ConfirmRound,
    MeasuredCandidate,
)
from deploy.search.candidate import Candidate
from deploy.search.confirmed_table import at_the_agreement, corrected, keep
from deploy.search.side_by_side import MeasuredModel, measured_beside
from hil.errors import CheckFailed
from hil.measurement import Measurement
from nas.errors import ConfigError
from nas.estimate import Estimate
from nas.quant.integer_graph import IntegerGraph
from nas.search.candidates import Limits
from nas.search.union import CostTables
from nas.space import Architecture
from nas.table import Table

Rank: TypeAlias = Callable[[Sequence[CostTables], Limits, int], Generator[Progress, None, list[Candidate]]]
"""The best so many models within limits of full networks, best first; `ConfigError` where nothing fits."""
Executed: TypeAlias = tuple[Architecture, QuantizationScheme | None]
"""What runs: an architecture in which every width is the widest that executes alike, and its scheme."""
ALIKE = 8  # candidates that are asked for each that is measured, where widths execute alike
TABLE_ERRORS = (1.02, 1.05, 1.1, 1.2, 1.5)
"""By what the sums of the smallest models may be too slow: the constant is that of models over the whole range, and a
shared machine may have been slower during the agreement than during the profile."""


@dataclass(frozen=True)
class AskedBudget:
    """A budget in bits, and in microseconds at the speed of the agreement.

    Attributes:
        share: of the teacher's latency.
        bits: the widths that blocks may have; None: any.
    """

    name: str
    limits: Limits
    share: float | None
    bits: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Confirmed:
    """What may be selected.

    Attributes:
        tables: of all schemes, the main one's corrected by what was measured.
        candidates: by budget, best first; those of a budget of latency were measured and keep it.
        missed: by budget, why there is no candidate; some other budget has some.
        shares: of the teacher's latency, as measured, of the candidates that were.
        record: None where nothing was measured.
    """

    tables: Sequence[CostTables]
    candidates: Mapping[str, Sequence[Candidate]]
    missed: Mapping[str, str]
    shares: Mapping[Candidate, Estimate]
    record: ConfirmRecord | None


def confirmed(
    context: Context,
    tables: Sequence[CostTables],
    budgets: Sequence[AskedBudget],
    teacher: IntegerGraph,
    rank: Rank,
) -> Generator[Progress, None, Confirmed]:
    """The candidates of each budget; with latency, only such as keep it by measurement.

    Where no budget has any, raises `CheckFailed` for one that no measured candidate keeps, `ConfigError` for one that
    no model fits by the table.
    """
    settings = context.experiment.search
    timed = [budget for budget in budgets if budget.share is not None and settings.measured]
    search = _Confirming(context, tables, teacher, rank)
    for number in range(1, settings.rounds + 1):
        wanted = yield from search.wanted(timed)
        if not wanted:
            break
        yield from search.measure(wanted, number)
    found: dict[str, Sequence[Candidate]] = {}
    missed: dict[str, CheckFailed | ConfigError] = {}
    for budget in budgets:
        try:
            if budget in timed:
                found[budget.name] = _kept(budget, search)
            else:
                found[budget.name] = yield from search.ask(budget, max(settings.measured, settings.finalists, 1))
        except (CheckFailed, ConfigError) as error:
            missed[budget.name] = error
    if not found:
        raise next(iter(missed.values()))
    reasons = {name: str(error) for name, error in missed.items()}
    record = search.record(timed) if timed else None
    return Confirmed(search.tables, found, reasons, search.shares(found.values()), record)


def _kept(budget: AskedBudget, search: _Confirming) -> Sequence[Candidate]:
    if budget.name in search.impossible:
        raise search.impossible[budget.name]
    if kept := search.kept(budget):
        return kept
    found = search.measured_for(budget)
    shares = [one.model.share for one in found if one.model.share is not None]
    least = min(shares, key=lambda share: share.high, default=None)
    reached = f"the best has {least.value:.3f} [{least.low:.3f}, {least.high:.3f}]" if least else "all failed"
    raise CheckFailed(
        f"budget '{budget.name}' is a budget that no measured candidate keeps: {budget.share:.3f} of the teacher's "
        f"latency is allowed, and of {len(found)} measured {reached}; allow more, measure more candidates ([search] "
        "measured, rounds), or on a noisy board longer ([agreement] measuring)"
    )


@dataclass(frozen=True)
class _Measured:
    """A candidate that was measured; `predicted_us`: by the tables that proposed it, in round `number`."""

    candidate: Candidate
    model: MeasuredModel
    predicted_us: float
    number: int


@dataclass(eq=False)
class _Confirming:
    """What is known so far.

    Attributes:
        tables: with the latest correction.
        proposed: by budget, the candidates that the search has named.
        measured: by what executes, since widths that run alike are one computation.
        impossible: by budget, that no model fits it by the table, nor nearly.
    """

    context: Context
    tables: Sequence[CostTables]
    teacher: IntegerGraph
    rank: Rank
    proposed: dict[str, dict[Candidate, None]] = field(default_factory=dict)
    measured: dict[Executed, _Measured] = field(default_factory=dict)
    impossible: dict[str, ConfigError] = field(default_factory=dict)
    rounds: list[ConfirmRound] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agreed = AgreementRecord.read(self.context.path / AgreementRecord.FILE)
        self.table = Table.load(self.context.path / "tables" / "latency.parquet")

    def measured_for(self, budget: AskedBudget) -> list[_Measured]:
        """Of what was proposed for the budget, the best candidate of each that was measured first."""
        found: dict[Executed, _Measured] = {}
        for candidate in self._proposed(budget):
            if one := self.measured.get(self._executed(candidate)):
                found.setdefault(self._executed(candidate), replace(one, candidate=candidate))
        return list(found.values())

    def kept(self, budget: AskedBudget) -> list[Candidate]:
        """Those that keep it as measured, best first."""
        limit = budget.share or 0.0
        measured = [(c, self.measured.get(self._executed(c))) for c in self._proposed(budget)]
        return [candidate for candidate, one in measured if one and one.model.keeps(limit)]

    def shares(self, found: Iterable[Sequence[Candidate]]) -> dict[Candidate, Estimate]:
        """As measured, of the candidates that were."""
        measured = {c: self.measured.get(self._executed(c)) for candidates in found for c in candidates}
        return {c: one.model.share for c, one in measured.items() if one and one.model.share}

    def _proposed(self, budget: AskedBudget) -> list[Candidate]:
        return sorted(self.proposed.get(budget.name, {}), key=lambda candidate: candidate.estimate)

    def unmeasured(self, budget: AskedBudget) -> Generator[Progress, None, list[Candidate]]:
        """What to measure next: nothing, once the best model, or every finalist, is known to keep the budget."""
        settings = self.context.experiment.search
        count, enough = max(settings.measured, settings.finalists), max(1, settings.finalists)
        alike = ALIKE if len(self.context.space.bits) > 1 else 1
        count_of_all = alike * (count + len(self.measured))
        try:
            ranked = yield from self.ask(budget, count_of_all)
        except ConfigError as error:
            # By the corrected table nothing fits any more; or not yet, and the table may be wrong.
            ranked = [] if self.measured else (yield from self._nearly(budget, count_of_all, error))
        self.proposed.setdefault(budget.name, {}).update(dict.fromkeys(ranked))
        kept = {self._executed(candidate) for candidate in self.kept(budget)}
        best: dict[Executed, Candidate] = {}
        for candidate in sorted({**dict.fromkeys(ranked), **dict.fromkeys(self.kept(budget))}, key=_estimate):
            executed = self._executed(candidate)
            if executed in kept or executed not in self.measured:
                best.setdefault(executed, candidate)
        first = list(best.items())[:count]
        if first and all(executed in kept for executed, _ in first[:enough]):
            return []
        return [candidate for executed, candidate in first if executed not in kept]

    def wanted(self, budgets: Sequence[AskedBudget]) -> Generator[Progress, None, dict[Candidate, list[float]]]:
        """What to measure next for all budgets, each executed model once, with the limits that matter for it."""
        limits: dict[Executed, list[float]] = {}
        first: dict[Executed, Candidate] = {}
        for budget in budgets:
            try:
                unmeasured = yield from self.unmeasured(budget)
            except ConfigError as error:
                self.impossible[budget.name] = error
                continue
            for candidate in unmeasured:
                executed = self._executed(candidate)
                first.setdefault(executed, candidate)
                limits.setdefault(executed, []).append(budget.share or 0.0)
        return {candidate: limits[executed] for executed, candidate in first.items()}

    def _executed(self, candidate: Candidate) -> Executed:
        subnets = (measured_as(self.context.space, subnet) for subnet in candidate.architecture.subnets)
        return Architecture(tuple(subnets)), candidate.scheme

    def ask(self, budget: AskedBudget, count: int) -> Generator[Progress, None, list[Candidate]]:
        try:
            tables = [tables.with_bits(budget.bits) for tables in self._with_allowance(budget)]
            return (yield from self.rank(tables, budget.limits, count))
        except ConfigError as error:
            raise ConfigError(f"budget '{budget.name}': {error}") from None

    def _nearly(
        self, budget: AskedBudget, count: int, error: ConfigError
    ) -> Generator[Progress, None, list[Candidate]]:
        """What would fit if predictions were as much too slow as `TABLE_ERRORS`; `error` if nothing would."""
        for error_factor in TABLE_ERRORS:
            limits = {**budget.limits, "latency": error_factor * budget.limits["latency"]}
            with suppress(ConfigError):
                return (yield from self.ask(replace(budget, limits=limits), count))
        raise error

    def _with_allowance(self, budget: AskedBudget) -> list[CostTables]:
        """The tables with what the ends of intervals exceed predictions by, for this budget's models of each scheme.

        So the search proposes models that are likely to be within the budget as they are measured. It also holds what
        the tables of other schemes, whose constant is not fitted again, are wrong by.
        """
        excess: dict[str, list[float]] = {}
        for one in self.measured_for(budget):
            if one.model.share is not None:
                tables, high_us = self._of(one.candidate), one.model.share.high * self.agreed.teacher_us
                over = high_us - tables.total("latency", one.candidate.architecture)
                excess.setdefault(tables.name, []).append(over)
        return [_slower(tables, median(excess.get(tables.name, [0.0]))) for tables in self.tables]

    def _of(self, candidate: Candidate) -> CostTables:
        if candidate.scheme is None:
            return self.tables[0]
        return next(tables for tables in self.tables if tables.name == str(candidate.scheme))

    def measure(self, wanted: Mapping[Candidate, Sequence[float]], number: int) -> Generator[Progress, None, None]:
        """Measure candidates, each with the limits that matter for it; correct the main scheme's table."""

        def on_its_device(measurement: Measurement) -> None:
            check_device(self.table, measurement.conditions)

        predicted_us = {c: self._of(c).total("latency", c.architecture) for c in wanted}
        session = yield from measured_beside(self.context, self.teacher, wanted, on_its_device)
        for candidate, model in session.models.items():
            self.measured[self._executed(candidate)] = _Measured(candidate, model, predicted_us[candidate], number)
        main, *rest = self.tables
        found = [
            at_the_agreement(one.candidate, one.model, self.agreed.teacher_us)
            for one in self.measured.values()
            if self._of(one.candidate) is main
        ]
        networks = [network for network in found if network]
        again, correction = corrected(self.context, self.agreed, self.table, main, networks)
        self.tables = [again, *rest]
        self.rounds.append(ConfirmRound(len(wanted), session.rounds, session.teacher_us, correction))

    def record(self, budgets: Sequence[AskedBudget]) -> ConfirmRecord:
        """What was measured; the corrected table is kept in tables/."""
        keep(self.context, self.table, self.tables[0])
        return ConfirmRecord(tuple(self._record_of(budget) for budget in budgets), tuple(self.rounds))

    def _record_of(self, budget: AskedBudget) -> ConfirmedBudget:
        limit, us = budget.share or 0.0, self.agreed.teacher_us
        candidates = (
            MeasuredCandidate(
                subnet=str(one.candidate.architecture),
                round=one.number,
                predicted_us=one.predicted_us,
                measured_us=us * one.model.share.value if one.model.share else None,
                share=one.model.share,
                kept=one.model.keeps(limit),
                scheme=str(one.candidate.scheme) if one.candidate.scheme else None,
                failure=one.model.failure,
            )
            for one in self.measured_for(budget)
        )
        return ConfirmedBudget(budget.name, limit, budget.limits["latency"], tuple(candidates))


def _estimate(candidate: Candidate) -> float:
    return candidate.estimate


def _slower(tables: CostTables, us: float) -> CostTables:
    return replace(tables, outside={**tables.outside, "latency": tables.outside.get("latency", 0.0) + us})
