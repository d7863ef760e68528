"""A run's students: built from the space, started from the supernets or from new weights, retrained, read back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch

from deploy.run.context import Context
from nas.networks.segmenter import Encoder, assemble
from nas.space import Architecture
from nas.tasks.network_training import network_groups, network_loss
from nas.tasks.task import fold, training_loss
from nas.training.device import on_its_device
from nas.training.quantization_aware import Folds, finished, restore_finished
from nas.training.soft_targets import Forward, Loss, distilled
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
    """Train a network of the run, a student or the teacher itself, by the retraining's recipe."""
    experiment = context.experiment
    device = experiment.compute.place()
    model.to(device)
    teacher = copy.deepcopy(context.teacher).to(device)  # the context's stays where calibration needs it
    loss = network_loss(
        model,
        context.train_data,
        schedule.batch_size,
        experiment.seed,
        teacher=teacher,
        teacher_losses=experiment.retrain.teacher_losses,
    )
    groups, log = network_groups(model, schedule), context.training_log(checkpoint)
    return train(model, loss, schedule, checkpoint, key, groups=groups, compute=experiment.compute, log=log)


def student_path(context: Context, name: str) -> Path:
    return context.path / "students" / f"{name}.pt"


def finish_path(context: Context, name: str) -> Path:
    return context.path / "students" / f"{name}.finish.pt"


def has_finish(context: Context) -> bool:
    """Whether retrained models, the teacher trained on too, are trained on as their integers."""
    return context.experiment.retrain.quantization_aware_steps > 0


def finishing(
    context: Context, model: Encoder, architecture: Architecture | None, checkpoint: Path, key: str
) -> Iterator[Step]:
    """The quantization-aware finish of a retrained `model`, on the task and the retraining's soft targets."""
    experiment, options = context.experiment, context.experiment.retrain
    device = experiment.compute.place()
    model.to(device)
    teacher = copy.deepcopy(context.teacher).to(device)

    def task(forward: Forward) -> Loss:
        def hard(given: Forward) -> Loss:
            seed = experiment.seed + 1  # other images in each step than the retraining's
            return training_loss(given, context.train_data, options.batch_size, seed, device=device)

        weight, temperature = options.distillation, options.temperature
        return distilled(hard, forward, on_its_device(teacher), weight=weight, temperature=temperature)

    return finished(
        model,
        _folds(model, architecture),
        task,
        [context.calibration],
        schedule=options.finish,
        checkpoint=checkpoint,
        key=key,
        scheme=experiment.quantization.scheme,
        compute=experiment.compute,
        log=context.training_log(checkpoint),
    )


def _folds(model: Encoder, architecture: Architecture | None) -> Folds:
    return lambda size: fold(model, size, architecture)


def retrained(context: Context, name: str, architecture: Architecture | None = None) -> Encoder:
    """A selected model with its final weights; None: the teacher's layers."""
    model = context.student(architecture) if architecture else context.untrained_teacher()
    restore(model, student_path(context, name))
    if has_finish(context):
        finished_at(context, model, architecture, finish_path(context, name))
    return model.eval()


def finished_at(context: Context, model: Encoder, architecture: Architecture | None, checkpoint: Path) -> None:
    """The weights of that finish into `model`, whose retrained ones it was made from."""
    restore_finished(model, _folds(model, architecture), checkpoint, [context.calibration])


def retrained_beside(
    context: Context, model: Encoder, architecture: Architecture, checkpoint: Path, key: str
) -> Iterator[Step]:
    """Retrain `model` by the recipe of `context` outside of its students, its finish too; it is read back as they are.

    The finish goes beside `checkpoint`, into NAME.finish.pt.
    """
    finish = checkpoint.with_suffix(".finish.pt")
    yield from retraining(context, model, context.experiment.retrain.schedule, checkpoint, key)
    if has_finish(context):
        yield from finishing(context, model, architecture, finish, key)
    restore(model.cpu(), checkpoint, key)
    if has_finish(context):
        finished_at(context, model, architecture, finish)
