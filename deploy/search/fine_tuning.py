"""Trainings of architectures, evaluated as the deployed integers: what rankings are made of, and compared with.

A fine-tuning starts from the supernets' blocks and the teacher's stem and head, is trained as in retraining but
shorter, quantized at the architecture's bit widths, and evaluated on held-out training images: for the accuracy
predictor, and for the finalists of a search. A final one is trained and evaluated as the stages retrain and ship do:
for a report on rankings. RUN/finetuned/scores.jsonl gets a line when one is done; one that is killed goes on from its
checkpoint.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.compile.artifact import kernels_of
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.digest import digest
from deploy.formats.journal import Journal
from deploy.run.borrowed import BorrowedRun
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.keys import settings_of
from deploy.run.networks import assembled, retraining, start_of_retraining
from deploy.run.quantizing import quantize_network
from nas.search.front import exact_front
from nas.space import Architecture, SearchSpace
from nas.table import Table
from nas.tasks.task import score_integer
from nas.training.threads import one_thread
from nas.training.train import Schedule


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned architecture: the deployed integers' score in the task's metric, the work's wall time in seconds."""

    subnet: str
    score: float
    seconds: float


@dataclass(frozen=True)
class TrainingPlan:
    """How architectures are trained and evaluated.

    Attributes:
        scheme: that they are quantized by; None: the experiment's.
        final: as selected models are, from the configured start, and on the validation images: for reports only.
        number: of the repetition, each with another seed for what training draws.
    """

    schedule: Schedule
    scheme: QuantizationScheme | None = None
    final: bool = False
    number: int = 0


@dataclass(frozen=True)
class FineTuning:
    """One training, as it travels to a worker."""

    run: BorrowedRun
    plan: TrainingPlan
    architecture: Architecture


def brief(experiment: Experiment, schedule: Schedule | None) -> Schedule:
    """A fine-tuning's schedule: the given one, or the retraining's with a fifth of its steps."""
    retrain = experiment.retrain.schedule
    return schedule or replace(retrain, steps=max(1, retrain.steps // 5))


def key_of(context: Context, plan: TrainingPlan) -> str:
    """A digest of all that a training's result depends on; how many there are is not part of it."""
    return digest(
        context.keys["tables"],
        settings_of(plan.schedule),
        settings_of(replace(context.experiment.retrain, **vars(plan.schedule))),
        [*(plan.scheme.key(context.arithmetic) if plan.scheme else ("",)), plan.final, plan.number],
        list(context.resize_factors),
    )


def sampled(space: SearchSpace, nsr: Table, size: Table, count: int, seed: int) -> list[Architecture]:
    """`count` distinct architectures: of the Pareto front of NSR and size, where searches end, and uniform ones.

    They alternate as long as there are both. The first n are the same whatever `count` is.
    """
    rng = random.Random(f"{seed}/predictor")
    front = list(exact_front(space, [nsr, size]).architectures)
    rng.shuffle(front)
    drawn: dict[Architecture, None] = {}
    for _ in range(50 * count):
        drawn[space.sample(rng)] = None
        if front:
            drawn[front.pop()] = None
        if len(drawn) >= count:
            break
    return list(drawn)[:count]


def fine_tune(context: Context, plan: TrainingPlan, architecture: Architecture) -> FineTuned:
    """Train and evaluate one architecture, on one thread: sums in another order would be another result."""
    started, drawing = time.monotonic(), reseeded(context, plan.number)
    with one_thread():
        model = (start_of_retraining if plan.final else assembled)(drawing, architecture)
        path = checkpoint(context, plan, architecture)
        for _ in retraining(drawing, model, plan.schedule, path, key_of(context, plan)):
            pass
        scheme = plan.scheme or context.experiment.quantization.main_scheme
        options = scheme.scheme(context.experiment.quantization.scheme)
        graph = quantize_network(context, model.cpu(), architecture, scheme=options)
        data = context.val_data if plan.final else context.held_out_data
        score = score_integer(graph, data, kernels_of(scheme.form, context.arithmetic))
    return FineTuned(str(architecture), score, round(time.monotonic() - started, 2))


def reseeded(context: Context, number: int) -> Context:
    """The same run with another seed for what training draws; its data, networks and keys stay."""
    if number == 0:
        return context
    _ = context.train_data, context.teacher, context.supernets  # of the run's own seed
    other = copy.copy(context)
    other.experiment = replace(context.experiment, seed=context.experiment.seed + number)
    return other


def journal(context: Context, plan: TrainingPlan) -> Journal[FineTuned]:
    return Journal(context.path / "finetuned" / "scores.jsonl", FineTuned, key_of(context, plan))


def checkpoint(context: Context, plan: TrainingPlan, architecture: Architecture) -> Path:
    return context.path / "finetuned" / f"{digest(str(architecture), key_of(context, plan))}.pt"


def _work(task: FineTuning) -> FineTuned:
    return fine_tune(task.run.context(), task.plan, task.architecture)


def fine_tunings(context: Context, plan: TrainingPlan, wanted: Sequence[Architecture]) -> Iterator[FineTuned]:
    """Those of `wanted` that are not done yet, as they end, from the context's engine; each durable when yielded."""
    done = finished(context, plan, wanted)
    for architecture in done:
        checkpoint(context, plan, architecture).unlink(missing_ok=True)  # killed between the line and this
    run = BorrowedRun.of(context)
    tasks = [FineTuning(run, plan, architecture) for architecture in wanted if architecture not in done]
    with closing(context.engine.each(_work, tasks)) as ended:
        for task, result in ended:
            journal(context, plan).append(result)
            checkpoint(context, plan, task.architecture).unlink(missing_ok=True)
            yield result


def finished(context: Context, plan: TrainingPlan, wanted: Sequence[Architecture]) -> dict[Architecture, FineTuned]:
    """Those of `wanted` that are done, in their order."""
    results = {result.subnet: result for result in journal(context, plan).read()}
    return {architecture: results[str(architecture)] for architecture in wanted if str(architecture) in results}
