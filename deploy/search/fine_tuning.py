"""Short fine-tunings of sampled architectures: what the accuracy predictor is fitted on.

Each starts from the supernets' blocks and the teacher's stem and head, is trained as in retraining but shorter,
quantized at the architecture's bit widths, and scored as the deployed integers on held-out training images.
RUN/predictor/finetuned.jsonl gets a line when one is done; one that is killed goes on from its checkpoint.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.formats.digest import digest
from deploy.formats.journal import Journal
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.keys import settings_of
from deploy.run.networks import assembled, retraining
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
class FineTuning:
    """One fine-tuning, as it travels to a worker, who sees the folder `run` too; whoever sends it has locked that."""

    experiment: Experiment
    space: SearchSpace
    run: Path
    boards_file: Path | None
    architecture: Architecture


def schedule_of(experiment: Experiment) -> Schedule:
    """A fine-tuning's schedule: the configured one, or the retraining's with a fifth of its steps."""
    retrain = experiment.retrain.schedule
    return experiment.predictor.schedule or replace(retrain, steps=max(1, retrain.steps // 5))


def key_of(context: Context) -> str:
    """A digest of all that a fine-tuning's result depends on; how many there are is not part of it."""
    options = context.experiment.retrain
    return digest(
        context.keys["tables"],
        settings_of(schedule_of(context.experiment)),
        [options.distillation, options.temperature] if options.distillation else None,
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


def fine_tune(context: Context, architecture: Architecture) -> FineTuned:
    """Train and evaluate one architecture, on one thread: sums in another order would be another result."""
    experiment, started = context.experiment, time.monotonic()
    with one_thread():
        model = assembled(context, architecture)
        for _ in retraining(
            context, model, schedule_of(experiment), checkpoint(context.path, architecture), key_of(context)
        ):
            pass
        graph = quantize_network(context, model.cpu(), architecture)
        score = score_integer(graph, context.held_out_data)
    return FineTuned(str(architecture), score, round(time.monotonic() - started, 2))


def journal(context: Context) -> Journal[FineTuned]:
    return Journal(context.path / "predictor" / "finetuned.jsonl", FineTuned, key_of(context))


def checkpoint(run: Path, architecture: Architecture) -> Path:
    return run / "predictor" / f"{digest(str(architecture))}.pt"


@functools.lru_cache(maxsize=1)
def _borrowed(experiment: Experiment, space: SearchSpace, run: Path, boards_file: Path | None) -> Context:
    """In a worker: one context for all its tasks, so that data and networks are loaded once."""
    return Context(experiment, space, Run.borrowed(run), boards_file)


def _work(task: FineTuning) -> FineTuned:
    context = _borrowed(task.experiment, task.space, task.run, task.boards_file)
    return fine_tune(context, task.architecture)


def fine_tunings(context: Context, wanted: Sequence[Architecture]) -> Iterator[FineTuned]:
    """Those of `wanted` that are not done yet, as they end, from the context's engine; each durable when yielded."""
    done = finished(context, wanted)
    for architecture in done:
        checkpoint(context.path, architecture).unlink(missing_ok=True)  # killed between the line and this
    tasks = [
        FineTuning(context.experiment, context.space, context.path, context.boards_file, architecture)
        for architecture in wanted
        if architecture not in done
    ]
    for task, result in context.engine.each(_work, tasks):
        journal(context).append(result)
        checkpoint(context.path, task.architecture).unlink(missing_ok=True)
        yield result


def finished(context: Context, wanted: Sequence[Architecture]) -> dict[Architecture, FineTuned]:
    """Those of `wanted` that are done, in their order."""
    results = {result.subnet: result for result in journal(context).read()}
    return {architecture: results[str(architecture)] for architecture in wanted if str(architecture) in results}
