"""Block-wise search, its rivals and controls on one space, one budget and the same tables, all retrained alike.

A comparison lives in the run's `compare/` and has its state there: supernets (NAME.pt), what was evaluated
(NAME-KEY.jsonl), retrained winners (retrained/), and the result (BUDGET.json). Killed at any moment, it goes on from
the last checkpoint and the last evaluated architecture, to the same result.
"""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deploy.compare.methods import METHODS
from deploy.compare.records import ComparisonRecord, MachineRecord, MethodRecord, RetrainedRecord, Spent, TeacherCosts
from deploy.compare.setup import SearchComparison, Winner, spent_in, started
from deploy.formats.digest import digest
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.networks import has_finish, retrained_beside
from deploy.run.quantizing import quantize_network
from deploy.run.records import SpaceSummary
from deploy.run.settings.deployment import TEACHER_PLUS
from deploy.run.settings.training import Retrain
from deploy.ship.evaluation import counted_on, simulated_confusions
from nas.estimate import Estimate
from nas.tasks.counted import Counted, paired_difference
from nas.tasks.task import score_float, score_integer

REFERENCES = (TEACHER_PLUS, "blockwise")
"""Methods whose winner every other one's is compared with."""


def compare_search(comparison: SearchComparison, methods: Sequence[str]) -> Iterator[Progress]:
    """Every method's winners, retrained alike: `result_path`."""
    found: list[tuple[str, Winner, list[Retrained]]] = []
    for method in methods:
        for winner in (yield from METHODS[method](comparison)):
            retrained = []
            for number in range(comparison.context.experiment.compare.retrainings):
                retrained.append((yield from retrained_alike(comparison, winner, number)))
            found.append((method, winner, retrained))
    references = {method: [one.counted for one in retrained] for method, _, retrained in found if method in REFERENCES}
    rows = [
        _row(
            comparison,
            method,
            winner,
            retrained,
            {
                name: paired_difference([one.counted for one in retrained], counted)
                for name, counted in references.items()
                if name != method
            },
        )
        for method, winner, retrained in found
    ]
    _record(comparison, rows).write(result_path(comparison))


def result_path(comparison: SearchComparison) -> Path:
    return comparison.run.path / f"{comparison.budget.name}.json"


def recipe(context: Context) -> Retrain:
    """The settings that every winner is retrained with."""
    return context.experiment.compare.retrain or context.experiment.retrain


@dataclass(frozen=True)
class Retrained:
    """A retrained winner by its record's key, its INT8 score image by image, and what its retraining took."""

    key: str
    record: RetrainedRecord
    counted: Counted
    spent: Spent


def retrained_alike(comparison: SearchComparison, winner: Winner, number: int) -> Generator[Progress, None, Retrained]:
    """A winner's final accuracy: a function of the architecture, its start, the recipe and the retraining's number."""
    architecture, settings = winner.architecture, recipe(comparison.context)
    context = _with_recipe(comparison.context, settings, comparison.context.experiment.seed + number)
    e, schedule = context.experiment, settings.schedule
    trained = (context.keys["distil"], settings_of(settings), settings_of(e.compute), winner.start)
    key = digest(
        *(*trained, str(architecture), e.seed, settings_of(e.quantization), list(context.resize_factors)),
        *(["finished"] if has_finish(context) else []),
    )
    path, name = comparison.run.path / "retrained" / f"{key}.json", f"retrain {key}"
    if not (comparison.run.is_done(name, key) and path.exists()):
        with comparison.run.stage(name, key):
            yield Progress(name, 0, schedule.steps, "starts")
            model = started(context, architecture, winner.start)
            for step in retrained_beside(context, model, architecture, path.with_suffix(".pt"), key):
                yield Progress(name, step.step, step.steps, f"loss {step.loss:.3f}")
            confusions = simulated_confusions(quantize_network(context, model, architecture), context.val_data)
            RetrainedRecord(
                subnet=str(architecture),
                seed=e.seed,
                fp32=score_float(model, context.val_data),
                int8=counted_on(context.val_data, confusions).score,
                confusions=confusions,
            ).write(path)
        yield Progress(name, schedule.steps, schedule.steps, "done")
    record = RetrainedRecord.read(path)
    return Retrained(key, record, counted_on(context.val_data, record.confusions), spent_in(comparison.run, name))


def _with_recipe(context: Context, settings: Retrain, seed: int) -> Context:
    """The run's context, with its data and trained networks, but another recipe and seed of retraining."""
    _ = context.train_data, context.val_data, context.calibration, context.teacher, context.supernets  # the run's seed
    other = copy.copy(context)
    other.experiment = replace(context.experiment, retrain=settings, seed=seed)
    return other


def _record(comparison: SearchComparison, rows: Sequence[MethodRecord]) -> ComparisonRecord:
    context, e = comparison.context, comparison.context.experiment
    return ComparisonRecord(
        experiment=e.name,
        metric=context.task.metric,
        space=SpaceSummary(context.space.name, context.space.digest, context.space.count()),
        data=e.data,
        budget=comparison.budget,
        settings=replace(e.compare, supernet=e.compare.supernet or e.teacher.schedule),
        retrain=recipe(context),
        teacher=TeacherCosts(
            int8=score_integer(comparison.teacher, context.val_data),
            size_bits=comparison.teacher.size_bits,
            latency_us=comparison.cost_tables.teacher["latency"],
        ),
        board_seconds=sum(spent_in(context.run, stage).wall_s for stage in ("profile", "agree")),
        machine=MachineRecord(platform.machine(), os.cpu_count(), torch.get_num_threads(), str(e.compute.place())),
        methods=tuple(rows),
    )


def _row(
    comparison: SearchComparison,
    method: str,
    winner: Winner,
    retrained: Sequence[Retrained],
    against: Mapping[str, Estimate],
) -> MethodRecord:
    tables, architecture = comparison.cost_tables, winner.architecture
    in_tables = comparison.context.space.contains(architecture)
    return MethodRecord(
        method=method,
        subnet=str(architecture),
        nsr=tables.total("nsr", architecture) if in_tables else None,
        evaluated=winner.evaluated,
        complete=winner.complete,
        fitness=winner.fitness,
        size_bits=comparison.size_bits(architecture),
        predicted_us=tables.total("latency", architecture) if in_tables else None,
        int8=tuple(one.record.int8 for one in retrained),
        fp32=tuple(one.record.fp32 for one in retrained),
        spent={**winner.spent, "retrain": sum((one.spent for one in retrained), Spent())},
        latency_share=winner.latency_share,
        against=against,
        retrained=tuple(one.key for one in retrained),
    )
