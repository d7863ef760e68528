"""The stage that searches: the exact Pareto front over NSR, size and latency, and the best under each budget."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.compile.artifact import bits_outside_blocks
from deploy.latency.gate import check_gate
from deploy.pipeline.gating import gate_of
from deploy.run.config import Budget
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.quantizing import quantize_network
from deploy.run.records import AgreementRecord, OutsideBlocks, ParetoPoint, SearchRecord, SelectedModel
from deploy.search.cost_tables import main_cost_tables, other_cost_tables
from deploy.search.predictor import Fitted, fitted
from nas.quant.integer_graph import IntegerGraph
from nas.search.front import Front, front
from nas.search.union import CostTables, Pick, best_within, union_front


def search(context: Context) -> Iterator[Progress]:
    """The exact front over NSR, size and corrected latency; the best architecture under each budget: search.json.

    With several schemes it is the union of their fronts, and every entry has its scheme; the gate is of the main one.
    Raises `CheckFailed` where the latency table is below the gate.
    """
    verdict = gate_of(context)
    check_gate(verdict)
    agreed = AgreementRecord.read(context.path / AgreementRecord.FILE)
    teacher = quantize_network(context, context.teacher)
    outside = OutsideBlocks(bits_outside_blocks(teacher), agreed.correction.constant_us)
    schemes = _cost_tables(context, outside)
    several = len(schemes) > 1
    fit = (yield from fitted(context)) if context.experiment.predictor.objective else None
    pick = _predicted(context, fit, schemes[0]) if fit else Front.best
    selected = []
    for i, budget in enumerate(context.experiment.budgets):
        limits = _limits(budget, teacher, agreed.teacher_us)
        tables, best, length = best_within(context.space, schemes, limits, f"budget '{budget.name}': ", pick)
        nsr, size_bits, latency_us = (tables.total(quantity, best) for quantity in ("nsr", "size", "latency"))
        scheme = tables.name if several else None
        selected.append(SelectedModel(budget.name, str(best), nsr, size_bits, latency_us, length, scheme))
        yield Progress("search", i + 1, len(context.experiment.budgets), f"{budget.name}: {best}")
    fronts = [front(tables.candidates(context.space, ("nsr", "latency"))) for tables in schemes]
    SearchRecord(
        selected=tuple(selected),
        gate=verdict,
        teacher_size_bits=teacher.size_bits,
        outside_blocks=outside,
        pareto_front=tuple(
            ParetoPoint(str(point.architecture), nsr, latency_us, point.scheme if several else None)
            for point in union_front(schemes, fronts)
            for nsr, latency_us in (point.costs,)
        ),
        schemes=tuple(tables.name for tables in schemes) if several else None,
    ).write(context.path / SearchRecord.FILE)


def _cost_tables(context: Context, outside: OutsideBlocks) -> list[CostTables]:
    """The tables of the main scheme and of the others."""
    settings, bits = context.experiment.quantization, outside.size_bits
    beside = {"size": bits, "latency": outside.latency_us}
    main = main_cost_tables(context.path, str(settings.main_scheme), context.keys, beside)
    return [main, *(other_cost_tables(context.path, scheme, context.keys, bits) for scheme in settings.other_schemes)]


def _limits(budget: Budget, teacher: IntegerGraph, teacher_us: float) -> dict[str, float]:
    """A budget in bits and microseconds of a full model."""
    limits = {}
    if budget.size is not None:
        limits["size"] = budget.size * teacher.size_bits
    if budget.latency is not None:
        limits["latency"] = budget.latency * teacher_us
    return limits


def _predicted(context: Context, fit: Fitted, tables: CostTables) -> Pick:
    """The accuracy predictor's choice instead of the least NSR sum."""
    return lambda _, limits: fit.search(context, [tables.tables[name] for name in limits], limits)[0]
