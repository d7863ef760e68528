"""The stage that searches: the exact front, and the best model under each budget, which keeps it as measured whole."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial

from deploy.compile.artifact import bits_outside_blocks
from deploy.latency.gate import check_gate
from deploy.pipeline.gating import gate_of
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.quantizing import quantize_network
from deploy.run.records import AgreementRecord, MissedBudget, OutsideBlocks, ParetoPoint, SearchRecord, SelectedModel
from deploy.run.settings.deployment import Budget
from deploy.search.candidate import Candidate
from deploy.search.confirm import AskedBudget, Confirmed, Rank, confirmed
from deploy.search.cost_tables import main_cost_tables, other_cost_tables
from deploy.search.halving import halved
from deploy.search.predictor import Fitted, fitted
from deploy.search.ranking import ranked
from nas.quant.integer_graph import IntegerGraph
from nas.search.candidates import Limits
from nas.search.front import front
from nas.search.union import CostTables, limits_of_schemes, union_front


def search(context: Context) -> Iterator[Progress]:
    """The exact front over NSR, size and corrected latency; the best architecture under each budget: search.json.

    With several schemes it is the union of their fronts, and every entry has its scheme; the gate is of the main one.
    A budget that no measured model keeps is recorded, and the run goes on with the others. Raises `CheckFailed` where
    the latency table is below the gate, or there are no others.
    """
    verdict = gate_of(context)
    check_gate(verdict)
    agreed = AgreementRecord.read(context.path / AgreementRecord.FILE)
    teacher = quantize_network(context, context.teacher)
    outside = OutsideBlocks(bits_outside_blocks(teacher), agreed.correction.constant_us)
    fit = (yield from fitted(context)) if context.experiment.predictor.objective else None
    rank: Rank = partial(_predicted, context, fit) if fit else partial(ranked, context)
    budgets = [_asked(budget, teacher, agreed.teacher_us) for budget in context.experiment.budgets]
    found = yield from confirmed(context, _cost_tables(context, outside), budgets, teacher, rank)
    selected = []
    for i, budget in enumerate(budgets):
        if budget.name in found.missed:
            yield Progress("search", i + 1, len(budgets), f"{budget.name}: no model keeps it")
            continue
        best, *_ = yield from halved(context, budget.name, found.candidates[budget.name])
        selected.append(_selected(context, found, budget, best))
        yield Progress("search", i + 1, len(budgets), f"{budget.name}: {best}")
    fronts = [front(tables.candidates(context.space, ("nsr", "latency"))) for tables in found.tables]
    several = len(found.tables) > 1
    SearchRecord(
        selected=tuple(selected),
        gate=verdict,
        teacher_size_bits=teacher.size_bits,
        outside_blocks=OutsideBlocks(outside.size_bits, found.tables[0].outside["latency"]),
        pareto_front=tuple(
            ParetoPoint(str(point.architecture), nsr, latency_us, point.scheme if several else None)
            for point in union_front(found.tables, fronts)
            for nsr, latency_us in (point.costs,)
        ),
        schemes=tuple(tables.name for tables in found.tables) if several else None,
        confirmed=found.record,
        missed=tuple(MissedBudget(name, reason) for name, reason in found.missed.items()),
    ).write(context.path / SearchRecord.FILE)


def _cost_tables(context: Context, outside: OutsideBlocks) -> list[CostTables]:
    """The tables of the main scheme and of the others."""
    settings, bits = context.experiment.quantization, outside.size_bits
    beside = {"size": bits, "latency": outside.latency_us}
    main = main_cost_tables(context.path, str(settings.main_scheme), context.keys, beside)
    return [main, *(other_cost_tables(context.path, scheme, context.keys, bits) for scheme in settings.other_schemes)]


def _asked(budget: Budget, teacher: IntegerGraph, teacher_us: float) -> AskedBudget:
    """A budget in bits and microseconds of a full model."""
    limits = {}
    if budget.size is not None:
        limits["size"] = budget.size * teacher.size_bits
    if budget.latency is not None:
        limits["latency"] = budget.latency * teacher_us
    return AskedBudget(budget.name, limits, budget.latency, budget.bits)


def _selected(context: Context, found: Confirmed, budget: AskedBudget, best: Candidate) -> SelectedModel:
    scheme = str(best.scheme) if best.scheme else None
    tables = next(tables for tables in found.tables if scheme in (None, tables.name))
    nsr, size_bits, latency_us = (tables.total(name, best.architecture) for name in ("nsr", "size", "latency"))
    length = len(
        front(tables.with_bits(budget.bits).candidates(context.space, ("nsr", *sorted(budget.limits, reverse=True))))
    )
    share = found.shares.get(best) if budget.share is not None else None
    return SelectedModel(budget.name, str(best.architecture), nsr, size_bits, latency_us, length, scheme, share)


def _predicted(
    context: Context, fit: Fitted, tables: Sequence[CostTables], limits: Limits, count: int
) -> Generator[Progress, None, list[Candidate]]:
    """By the accuracy predictor instead of the NSR sum, which knows one scheme."""
    yield from ()
    (main,) = tables
    quantities = ("nsr", *limits)
    (within,) = limits_of_schemes(tables, [front(main.candidates(context.space, quantities))], limits)
    costs = [main.tables[name] for name in limits]
    return [Candidate(a, None, -score) for a, score in fit.ranked(context, costs, within or {}, count)]
