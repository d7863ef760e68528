"""A run's students: built from the space, started from the supernets or from new weights, retrained, read back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from deploy.run.context import Context
from nas.networks.segmenter import Encoder, assemble
from nas.space import Architecture
from nas.tasks.task import training_loss
from nas.training.device import on_its_device
from nas.training.soft_targets import Forward, distilled
from nas.training.train import Schedule, Step, restore, train


def untrained_student(context: Context, architecture: Architecture) -> Encoder:
    """An architecture with new weights, a function of the seed alone."""
    torch.manual_seed(context.experiment.seed)
    return context.student(architecture)


def assembled(context: Context, architecture: Architecture) -> Encoder:
    """An architecture from the supernets' blocks and the teacher's stem and head."""
    return assemble(untrained_student(context, architecture), context.teacher, context.supernets, architecture)


def start_of_retraining(context: Context, architecture: Architecture) -> Encoder:
    """What a selected model is retrained from: the supernets' weights, or none but the seed's."""
    if context.experiment.retrain.start == "scratch":
        return untrained_student(context, architecture)
    return assembled(context, architecture)


def retraining(context: Context, model: Encoder, schedule: Schedule, checkpoint: Path, key: str) -> Iterator[Step]:
    """Train `model` on the task, with the teacher's soft targets where retrain.distillation asks for them."""
    experiment, options = context.experiment, context.experiment.retrain
    device = experiment.compute.place()
    model.to(device)
    teacher = copy.deepcopy(context.teacher).to(device)  # the context's stays where calibration needs it

    def task(forward: Forward) -> Callable[[int], Tensor]:
        return training_loss(forward, context.train_data, schedule.batch_size, experiment.seed, device=device)

    loss = distilled(
        task,
        on_its_device(model),
        on_its_device(teacher),
        weight=options.distillation,
        temperature=options.temperature,
    )
    log = context.training_log(checkpoint)
    return train(model, loss, schedule, checkpoint, key, compute=experiment.compute, log=log)


def student_path(context: Context, name: str) -> Path:
    return context.path / "students" / f"{name}.pt"


def retrained(context: Context, name: str, architecture: Architecture | None = None) -> Encoder:
    """A selected model with its final weights; None: the teacher's layers."""
    model = context.student(architecture) if architecture else context.untrained_teacher()
    restore(model, student_path(context, name))
    return model.eval()
