"""Stages that train whole networks: the teacher and the selected models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from deploy.formats.digest import digest
from deploy.formats.tflite.read import convolutions, read
from deploy.pipeline.data_check import check_data
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.networks import finish_path, finishing, has_finish, retraining, start_of_retraining, student_path
from deploy.run.records import SearchRecord
from deploy.run.settings.deployment import TEACHER, TEACHER_PLUS
from nas.data.batches import images_of
from nas.networks.segmenter import Encoder, load_encoder
from nas.space import Architecture
from nas.tasks.network_training import network_groups, network_loss
from nas.training.train import Step, train


def _progress(stage: str, steps: Iterator[Step], name: str = "", done: int = 0, total: int = 0) -> Iterator[Progress]:
    for s in steps:
        yield Progress(stage, done + s.step, total or s.steps, f"{name} loss {s.loss:.3f}".strip())


def train_teacher(context: Context) -> Iterator[Progress]:
    """Train the network that the blocks will learn from, into teacher.pt."""
    settings = context.experiment.teacher
    model = context.untrained_teacher()
    yield from check_data(context)
    if settings.encoder_from:
        folded = [
            (torch.from_numpy(w), torch.from_numpy(b)) for w, b in convolutions(read(Path(settings.encoder_from)))
        ]
        load_encoder(model, folded, next(images_of(context.train_data, 16)))
    compute, seed = context.experiment.compute, context.experiment.seed
    device = compute.place()
    model.to(device)
    batch_size = settings.schedule.batch_size
    loss, groups = network_loss(model, context.train_data, batch_size, seed), network_groups(model, settings.schedule)
    checkpoint, key = context.path / "teacher.pt", context.keys["teacher"]
    log = context.training_log(checkpoint)
    steps = train(model, loss, settings.schedule, checkpoint, key, groups=groups, compute=compute, log=log)
    yield from _progress("teacher", steps)


def retrain(context: Context) -> Iterator[Progress]:
    """Train every selected model on the task, into students/NAME.pt, and the teacher on by the same recipe.

    A selected model that is more accurate than the teacher may owe that to longer training alone; only one that is more
    accurate than the teacher trained on (students/teacher_plus.pt) owes it to the search. The quantization-aware
    finish of each, where the recipe has one, goes into students/NAME.finish.pt.
    """
    selected = SearchRecord.read(context.path / SearchRecord.FILE).selected
    schedule = context.experiment.retrain
    starts: list[tuple[str, Architecture | None, Callable[[], Encoder]]] = [
        (entry.name, entry.architecture, partial(start_of_retraining, context, entry.architecture))
        for entry in selected
    ]
    starts.append((TEACHER_PLUS, None, lambda: copy.deepcopy(context.teacher)))
    for i, (name, architecture, start) in enumerate(starts):
        key = digest(context.keys["retrain"], str(architecture) if architecture else TEACHER)
        model = start()
        steps = retraining(context, model, schedule, student_path(context, name), key)
        yield from _progress("retrain", steps, name, i * schedule.steps, len(starts) * schedule.steps)
        if has_finish(context):
            steps = finishing(context, model, architecture, finish_path(context, name), key)
            yield from _progress("retrain", steps, f"{name} as integers")
