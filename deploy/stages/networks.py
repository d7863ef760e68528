"""Stages that train whole networks: the teacher and the found models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from deploy.config import digest
from deploy.context import Context
from deploy.run import Progress
from deploy.tflite.read import convolutions, read
from nas.data.batches import images_of
from nas.device import on_its_device
from nas.soft_targets import Forward, distilled
from nas.space import Architecture
from nas.task import training_loss
from nas.teacher import Encoder, assemble, load_encoder
from nas.train import Schedule, Step, restore, train


def _progress(stage: str, steps: Iterator[Step], name: str = "", done: int = 0, total: int = 0) -> Iterator[Progress]:
    for s in steps:
        yield Progress(stage, done + s.step, total or s.steps, f"{name} loss {s.loss:.3f}".strip())


def train_teacher(context: Context) -> Iterator[Progress]:
    """Train the network that the blocks will learn from, into teacher.pt."""
    settings = context.experiment.teacher
    model = context.untrained_teacher()
    _ = context.val_data  # refuses a validation split that cannot be opened now, not hours later
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
    yield from _progress("teacher", train(model, loss, settings.schedule, checkpoint, key, compute=compute))


def untrained_student(context: Context, architecture: Architecture) -> Encoder:
    """An architecture with new weights, a function of the seed alone."""
    torch.manual_seed(context.experiment.seed)
    return context.student(architecture)


def assembled(context: Context, architecture: Architecture) -> Encoder:
    """An architecture from the supernets' blocks and the teacher's stem and head."""
    return assemble(untrained_student(context, architecture), context.teacher, context.supernets, architecture)


def start_of_retraining(context: Context, architecture: Architecture) -> Encoder:
    """What a found model is retrained from: the supernets' weights, or none but the seed's."""
    if context.experiment.retrain.start == "scratch":
        return untrained_student(context, architecture)
    return assembled(context, architecture)


def retraining(context: Context, model: Encoder, schedule: Schedule, checkpoint: Path, key: str) -> Iterator[Step]:
    """Train `model` on the task, with the teacher's soft targets where retrain.distillation asks for them."""
    experiment, options = context.experiment, context.experiment.retrain
    device = experiment.compute.place()
    model.to(device)
    teacher = copy.deepcopy(context.teacher).to(device)  # the context's own stays where calibration needs it

    def task(forward: Forward) -> Callable[[int], Tensor]:
        return training_loss(forward, context.train_data, schedule.batch_size, experiment.seed, device=device)

    loss = distilled(
        task,
        on_its_device(model),
        on_its_device(teacher),
        weight=options.distillation,
        temperature=options.temperature,
    )
    return train(model, loss, schedule, checkpoint, key, compute=experiment.compute)


def retrain(context: Context) -> Iterator[Progress]:
    """Train every found model on the task, into students/NAME.pt."""
    found = context.record("search")["found"]
    assert isinstance(found, list)  # noqa: S101 (our own record)
    schedule = context.experiment.retrain
    for i, entry in enumerate(found):
        model = start_of_retraining(context, Architecture.parse(entry["subnet"]))
        key = digest(context.keys["retrain"], entry["subnet"])
        steps = retraining(context, model, schedule, student_path(context, entry["name"]), key)
        yield from _progress("retrain", steps, entry["name"], i * schedule.steps, len(found) * schedule.steps)


def student_path(context: Context, name: str) -> Path:
    return context.path / "students" / f"{name}.pt"


def retrained(context: Context, name: str, architecture: Architecture) -> Encoder:
    """A found model with its final weights."""
    model = context.student(architecture)
    restore(model, student_path(context, name))
    return model.eval()
