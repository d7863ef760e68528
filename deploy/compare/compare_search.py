"""Block-wise search and its rivals on one space, one budget and the same tables, winners retrained alike.

A comparison lives in the run's `compare/` and has a state of its own there: supernets (NAME.pt), what was judged
(NAME-KEY.jsonl), retrained winners (retrained/), and the result (BUDGET.json). Killed at any moment, it goes on from
the last checkpoint and the last judged architecture, to the same result.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from deploy.compare.methods import METHODS
from deploy.compare.setup import Comparison, Found, Spent, spent_in
from deploy.formats.digest import digest
from deploy.formats.files import read_json, write_json
from deploy.run.config import Retrain
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.networks import assembled
from deploy.run.quantizing import quantize_network
from deploy.run.records import AgreementRecord
from nas.space import Architecture
from nas.tasks.task import score_float, score_integer, training_loss
from nas.training.device import on_its_device
from nas.training.train import train


def retraining(context: Context) -> Retrain:
    """The settings that every winner is retrained with."""
    e = context.experiment
    return e.compare.retrain or replace(e.retrain, start="scratch", distillation=0.0)


def retrained_alike(
    comparison: Comparison, architecture: Architecture, number: int
) -> Generator[Progress, None, dict[str, Any]]:
    """An architecture's final accuracy: a function of the architecture, the settings and the retraining's number."""
    context, settings = comparison.context, retraining(comparison.context)
    compute, schedule = context.experiment.compute, settings.schedule
    seed = context.experiment.seed + number
    built_on = context.keys["distil"] if settings.start == "supernet" else comparison.data_key
    trained = (built_on, settings_of(settings), settings_of(compute), str(architecture), seed)
    key = digest(*trained, settings_of(context.experiment.quantization), list(context.resize_factors))
    result = comparison.run.path / "retrained" / f"{key}.json"
    name = f"retrain {key}"
    if not (comparison.run.is_done(name, key) and result.exists()):
        with comparison.run.stage(name, key):
            torch.manual_seed(seed)
            from_blocks = settings.start == "supernet"
            model = assembled(context, architecture) if from_blocks else context.student(architecture)
            model.to(compute.place())
            loss = training_loss(on_its_device(model), context.train_data, schedule.batch_size, seed)
            yield Progress(name, 0, schedule.steps, "starts")
            for step in train(model, loss, schedule, result.with_suffix(".pt"), key, compute=compute):
                yield Progress(name, step.step, schedule.steps, f"loss {step.loss:.3f}")
            graph = quantize_network(context, model.cpu(), architecture)
            scores = {
                "fp32": score_float(model, context.val_data),
                "int8": score_integer(graph, context.val_data),
            }
            write_json(result, {"subnet": str(architecture), "seed": seed, **scores})
        yield Progress(name, schedule.steps, schedule.steps, "done")
    record: dict[str, Any] = read_json(result)
    return {**record, **asdict(spent_in(comparison.run, name))}


def compare_search(comparison: Comparison, methods: Sequence[str]) -> Iterator[Progress]:
    """Every method's winner, retrained alike: compare/BUDGET.json."""
    context, settings = comparison.context, comparison.context.experiment.compare
    rows = []
    for method in methods:
        found = yield from METHODS[method](comparison)
        again = []
        for number in range(settings.retrainings):
            again.append((yield from retrained_alike(comparison, found.architecture, number)))
        rows.append(_row(comparison, method, found, again))
    teacher_us = AgreementRecord.read(context.path / AgreementRecord.FILE).teacher_us
    record: dict[str, Any] = {
        "experiment": context.experiment.name,
        "metric": context.task.metric,
        "space": {"name": context.space.name, "digest": context.space.digest, "subnets": context.space.count()},
        "data": asdict(context.experiment.data),
        "budget": asdict(comparison.budget),
        "settings": {**asdict(settings), "supernet": asdict(settings.supernet or context.experiment.teacher.schedule)},
        "retrain": asdict(retraining(context)),
        "teacher": {
            "int8": score_integer(comparison.teacher, context.val_data),
            "size_bits": comparison.teacher.size_bits,
            "latency_us": teacher_us,
        },
        "board_seconds": sum(spent_in(context.run, stage).wall_s for stage in ("profile", "agree")),
        "machine": {
            "name": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(context.experiment.compute.place()),
        },
        "methods": rows,
    }
    write_json(comparison.run.path / f"{comparison.budget.name}.json", record)


def _row(comparison: Comparison, method: str, found: Found, again: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    retraining_cost = sum((Spent(r["wall_s"], r["cpu_s"]) for r in again), Spent())
    return {
        "method": method,
        "subnet": str(found.architecture),
        "nsr": comparison.tables["nsr"].total(found.architecture),
        "judged": found.judged,
        "complete": found.complete,
        "fitness": found.fitness,
        "size_bits": comparison.tables["size"].total(found.architecture) + comparison.around["size"],
        "predicted_us": comparison.tables["latency"].total(found.architecture) + comparison.around["latency"],
        "int8": [r["int8"] for r in again],
        "fp32": [r["fp32"] for r in again],
        "spent": {column: asdict(spent) for column, spent in {**found.spent, "retrain": retraining_cost}.items()},
    }
