"""Stages that train whole networks: the teacher and the selected models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from deploy.formats.digest import digest
from deploy.formats.tflite.read import convolutions, read
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.networks import retraining, start_of_retraining, student_path
from deploy.run.records import SearchRecord
from nas.data.batches import images_of
from nas.networks.segmenter import load_encoder
from nas.tasks.task import training_loss
from nas.training.device import on_its_device
from nas.training.train import Step, train


def _progress(stage: str, steps: Iterator[Step], name: str = "", done: int = 0, total: int = 0) -> Iterator[Progress]:
    for s in steps:
        yield Progress(stage, done + s.step, total or s.steps, f"{name} loss {s.loss:.3f}".strip())


def train_teacher(context: Context) -> Iterator[Progress]:
    """Train the network that the blocks will learn from, into teacher.pt."""
    settings = context.experiment.teacher
    model = context.untrained_teacher()
    context.check_val_data()
    if settings.encoder_from:
        folded = [
            (torch.from_numpy(w), torch.from_numpy(b)) for w, b in convolutions(read(Path(settings.encoder_from)))
        ]
        load_encoder(model, folded, next(images_of(context.train_data, 16)))
    compute, seed = context.experiment.compute, context.experiment.seed
    device = compute.place()
    model.to(device)
    batch_size = settings.schedule.batch_size
    loss = training_loss(on_its_device(model), context.train_data, batch_size, seed, device=device)
    checkpoint, key = context.path / "teacher.pt", context.keys["teacher"]
    log = context.training_log(checkpoint)
    yield from _progress("teacher", train(model, loss, settings.schedule, checkpoint, key, compute=compute, log=log))


def retrain(context: Context) -> Iterator[Progress]:
    """Train every selected model on the task, into students/NAME.pt."""
    selected = SearchRecord.read(context.path / SearchRecord.FILE).selected
    schedule = context.experiment.retrain
    for i, entry in enumerate(selected):
        model = start_of_retraining(context, entry.architecture)
        key = digest(context.keys["retrain"], entry.subnet)
        steps = retraining(context, model, schedule, student_path(context, entry.name), key)
        yield from _progress("retrain", steps, entry.name, i * schedule.steps, len(selected) * schedule.steps)
