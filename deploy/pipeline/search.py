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
    sides = _sides(context, outside)
    several = len(sides) > 1
    fit = (yield from fitted(context)) if context.experiment.predictor.objective else None
    pick = _predicted(context, fit, sides[0]) if fit else Front.best
    selected = []
    for i, budget in enumerate(context.experiment.budgets):
        limits = _limits(budget, teacher, agreed.teacher_us)
        side, best, length = best_within(context.space, sides, limits, f"budget '{budget.name}': ", pick)
        nsr, size_bits, latency_us = (side.total(quantity, best) for quantity in ("nsr", "size", "latency"))
        scheme = side.name if several else None
        selected.append(SelectedModel(budget.name, str(best), nsr, size_bits, latency_us, length, scheme))
        yield Progress("search", i + 1, len(context.experiment.budgets), f"{budget.name}: {best}")
    fronts = [front(side.candidates(context.space, ("nsr", "latency"))) for side in sides]
    SearchRecord(
        selected=tuple(selected),
        gate=verdict,
        teacher_size_bits=teacher.size_bits,
        outside_blocks=outside,
        pareto_front=tuple(
            ParetoPoint(str(point.architecture), nsr, latency_us, point.scheme if several else None)
            for point in union_front(sides, fronts)
            for nsr, latency_us in (point.costs,)
        ),
        schemes=tuple(side.name for side in sides) if several else None,
    ).write(context.path / SearchRecord.FILE)


def _sides(context: Context, outside: OutsideBlocks) -> list[CostTables]:
    """The tables of the main scheme and of the others."""
    settings, bits = context.experiment.quantization, outside.size_bits
    around = {"size": bits, "latency": outside.latency_us}
    main = main_cost_tables(context.path, str(settings.main_scheme), context.keys, around)
    return [main, *(other_cost_tables(context.path, scheme, context.keys, bits) for scheme in settings.other_schemes)]


def _limits(budget: Budget, teacher: IntegerGraph, teacher_us: float) -> dict[str, float]:
    """A budget in bits and microseconds of a full model."""
    limits = {}
    if budget.size is not None:
        limits["size"] = budget.size * teacher.size_bits
    if budget.latency is not None:
        limits["latency"] = budget.latency * teacher_us
    return limits


def _predicted(context: Context, fit: Fitted, side: CostTables) -> Pick:
    """The accuracy predictor's choice instead of the least NSR sum."""
    return lambda _, limits: fit.search(context, [side.tables[name] for name in limits], limits)[0]
