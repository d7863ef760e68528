"""The stage that searches: the exact Pareto front over NSR, size and latency, and the best under each budget."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.compile.artifact import bits_outside_blocks
from deploy.formats.files import write_json
from deploy.pipeline.gating import gate_of
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.quantizing import quantize_network
from deploy.search.cost_tables import main_side, other_side
from deploy.search.predictor import Fitted, fitted
from nas.search.front import Front, front
from nas.search.union import Pick, Side, best_within, union_front


def search(context: Context) -> Iterator[Progress]:
    """The exact front over NSR, size and corrected latency; the best architecture under each budget: search.json.

    With alternatives it is the union of the schemes' fronts, and every entry says its scheme; the gate judges the main
    one. Raises `CheckFailed` where the latency table is below the gate.
    """
    verdict = gate_of(context)
    verdict.check()
    judged = context.record("agreement")
    correction, teacher_us = judged["correction"], judged["teacher_us"]
    assert isinstance(correction, dict) and isinstance(teacher_us, float)  # noqa: S101 (our own record)
    graph = quantize_network(context, context.teacher)
    around_us = correction["constant_us"]
    around_bits = bits_outside_blocks(graph)
    schemes = context.experiment.quantization
    sides = [main_side(context.path, str(schemes.own), context.keys, {"size": around_bits, "latency": around_us})]
    sides += [other_side(context.path, scheme, context.keys, around_bits) for scheme in schemes.others]
    fit = (yield from fitted(context)) if context.experiment.predictor.objective else None
    found = []
    for i, budget in enumerate(context.experiment.budgets):
        within = {}
        if budget.size is not None:
            within["size"] = budget.size * graph.size_bits
        if budget.latency is not None:
            within["latency"] = budget.latency * teacher_us
        pick = _predicted(context, fit, sides[0]) if fit else Front.best
        side, best, length = best_within(context.space, sides, within, f"budget '{budget.name}': ", pick)
        found.append(
            {
                "name": budget.name,
                "subnet": str(best),
                "nsr": side.total("nsr", best),
                "size_bits": side.total("size", best),
                "predicted_us": side.total("latency", best),
                "front": length,
                **_scheme(context, side.name),
            }
        )
        yield Progress("search", i + 1, len(context.experiment.budgets), f"{budget.name}: {best}")
    fronts = [front(side.candidates(context.space, ("nsr", "latency"))) for side in sides]
    write_json(
        context.path / "search.json",
        {
            "found": found,
            "gate": verdict.record(),
            "teacher_size_bits": graph.size_bits,
            "around": {"size_bits": around_bits, "latency_us": around_us},
            "front": [
                {
                    "subnet": str(point.architecture),
                    "nsr": point.costs[0],
                    "latency_us": point.costs[1],
                    **_scheme(context, point.side),
                }
                for point in union_front(sides, fronts)
            ],
            **({"schemes": [side.name for side in sides]} if schemes.others else {}),
        },
    )


def _scheme(context: Context, name: str) -> dict[str, str]:
    """What an entry says of its scheme: nothing where there is one for all."""
    return {"scheme": name} if context.experiment.quantization.others else {}


def _predicted(context: Context, fit: Fitted, side: Side) -> Pick:
    """The accuracy predictor's choice instead of the least NSR sum."""
    return lambda _, limits: fit.search(context, [side.tables[name] for name in limits], limits)[0]
