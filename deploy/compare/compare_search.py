"""Block-wise search and its rivals on one space, one budget and the same tables, winners retrained alike.

A comparison lives in the run's `compare/` and has its state there: supernets (NAME.pt), what was evaluated
(NAME-KEY.jsonl), retrained winners (retrained/), and the result (BUDGET.json). Killed at any moment, it goes on from
the last checkpoint and the last evaluated architecture, to the same result.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deploy.compare.methods import METHODS
from deploy.compare.records import ComparisonRecord, MachineRecord, MethodRecord, RetrainedRecord, Spent, TeacherCosts
from deploy.compare.setup import SearchComparison, Winner, spent_in
from deploy.formats.digest import digest
from deploy.run.config import Retrain
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.networks import assembled
from deploy.run.quantizing import quantize_network
from deploy.run.records import SpaceSummary
from nas.space import Architecture
from nas.tasks.task import score_float, score_integer, training_loss
from nas.training.device import on_its_device
from nas.training.train import train


def compare_search(comparison: SearchComparison, methods: Sequence[str]) -> Iterator[Progress]:
    """Every method's winner, retrained alike: `result_path`."""
    rows = []
    for method in methods:
        winner = yield from METHODS[method](comparison)
        retrained = []
        for number in range(comparison.context.experiment.compare.retrainings):
            retrained.append((yield from retrained_alike(comparison, winner.architecture, number)))
        rows.append(_row(comparison, method, winner, retrained))
    _record(comparison, rows).write(result_path(comparison))


def result_path(comparison: SearchComparison) -> Path:
    return comparison.run.path / f"{comparison.budget.name}.json"


def retraining(context: Context) -> Retrain:
    """The settings that every winner is retrained with."""
    e = context.experiment
    return e.compare.retrain or replace(e.retrain, start="scratch", distillation=0.0)


@dataclass(frozen=True)
class Retrained:
    """A retrained winner, and what its retraining took."""

    record: RetrainedRecord
    spent: Spent


def retrained_alike(
    comparison: SearchComparison, architecture: Architecture, number: int
) -> Generator[Progress, None, Retrained]:
    """An architecture's final accuracy: a function of the architecture, the settings and the retraining's number."""
    context, settings = comparison.context, retraining(comparison.context)
    compute, schedule = context.experiment.compute, settings.schedule
    seed = context.experiment.seed + number
    built_on = context.keys["distil"] if settings.start == "supernet" else comparison.data_key
    trained = (built_on, settings_of(settings), settings_of(compute), str(architecture), seed)
    key = digest(*trained, settings_of(context.experiment.quantization), list(context.resize_factors))
    path, name = comparison.run.path / "retrained" / f"{key}.json", f"retrain {key}"
    if not (comparison.run.is_done(name, key) and path.exists()):
        with comparison.run.stage(name, key):
            torch.manual_seed(seed)
            from_blocks = settings.start == "supernet"
            model = assembled(context, architecture) if from_blocks else context.student(architecture)
            model.to(compute.place())
            loss = training_loss(on_its_device(model), context.train_data, schedule.batch_size, seed)
            yield Progress(name, 0, schedule.steps, "starts")
            for step in train(model, loss, schedule, path.with_suffix(".pt"), key, compute=compute):
                yield Progress(name, step.step, schedule.steps, f"loss {step.loss:.3f}")
            graph = quantize_network(context, model.cpu(), architecture)
            fp32, int8 = score_float(model, context.val_data), score_integer(graph, context.val_data)
            RetrainedRecord(str(architecture), seed, fp32, int8).write(path)
        yield Progress(name, schedule.steps, schedule.steps, "done")
    return Retrained(RetrainedRecord.read(path), spent_in(comparison.run, name))


def _record(comparison: SearchComparison, rows: Sequence[MethodRecord]) -> ComparisonRecord:
    context, e = comparison.context, comparison.context.experiment
    return ComparisonRecord(
        experiment=e.name,
        metric=context.task.metric,
        space=SpaceSummary(context.space.name, context.space.digest, context.space.count()),
        data=e.data,
        budget=comparison.budget,
        settings=replace(e.compare, supernet=e.compare.supernet or e.teacher.schedule),
        retrain=retraining(context),
        teacher=TeacherCosts(
            int8=score_integer(comparison.teacher, context.val_data),
            size_bits=comparison.teacher.size_bits,
            latency_us=comparison.cost_tables.teacher["latency"],
        ),
        board_seconds=sum(spent_in(context.run, stage).wall_s for stage in ("profile", "agree")),
        machine=MachineRecord(platform.machine(), os.cpu_count(), torch.get_num_threads(), str(e.compute.place())),
        methods=tuple(rows),
    )


def _row(comparison: SearchComparison, method: str, winner: Winner, retrained: Sequence[Retrained]) -> MethodRecord:
    tables, architecture = comparison.cost_tables, winner.architecture
    return MethodRecord(
        method=method,
        subnet=str(architecture),
        nsr=tables.total("nsr", architecture),
        evaluated=winner.evaluated,
        complete=winner.complete,
        fitness=winner.fitness,
        size_bits=tables.total("size", architecture),
        predicted_us=tables.total("latency", architecture),
        int8=tuple(one.record.int8 for one in retrained),
        fp32=tuple(one.record.fp32 for one in retrained),
        spent={**winner.spent, "retrain": sum((one.spent for one in retrained), Spent())},
    )
