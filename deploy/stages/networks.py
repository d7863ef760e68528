"""Stages that train: the teacher, the blocks' supernets, the found models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from deploy.config import digest
from deploy.context import Context
from deploy.run import Progress
from deploy.tflite.read import convolutions, read
from nas.distil import block_losses, parameter_groups
from nas.segmentation import cross_entropy, images_of
from nas.space import Architecture
from nas.teacher import Segmenter, assemble, load_encoder, student
from nas.train import Step, restore, train


def _progress(stage: str, steps: Iterator[Step], name: str = "", done: int = 0, total: int = 0) -> Iterator[Progress]:
    for s in steps:
        yield Progress(stage, done + s.step, total or s.steps, f"{name} loss {s.loss:.3f}".strip())


def train_teacher(context: Context) -> Iterator[Progress]:
    """Train the segmentation network that the blocks will learn from, into teacher.pt."""
    settings = context.experiment.teacher
    model = context.untrained_teacher()
    if settings.encoder_from:
        folded = [
            (torch.from_numpy(w), torch.from_numpy(b)) for w, b in convolutions(read(Path(settings.encoder_from)))
        ]
        load_encoder(model, folded, next(images_of(context.train_data, 16)))
    loss = cross_entropy(model, context.train_data, settings.schedule.batch_size, context.experiment.seed)
    yield from _progress(
        "teacher", train(model, loss, settings.schedule, context.path / "teacher.pt", context.keys["teacher"])
    )


def distil(context: Context) -> Iterator[Progress]:
    """Train every block's supernet on the teacher's feature maps, into supernets.pt."""
    settings = context.experiment.distil
    model = context.untrained_supernets()
    loss = block_losses(
        model, context.teacher, context.train_data, settings.schedule.batch_size, context.experiment.seed
    )
    yield from _progress(
        "distil",
        train(
            model,
            loss,
            settings.schedule,
            context.path / "supernets.pt",
            context.keys["distil"],
            groups=parameter_groups(model, settings.learning_rates),
        ),
    )


def assembled(context: Context, architecture: Architecture) -> Segmenter:
    """An architecture from the supernets' blocks and the teacher's stem and head."""
    model = student(context.space, architecture, len(context.train_data.classes), context.experiment.teacher.head)
    return assemble(model, context.teacher, context.supernets, architecture)


def retrain(context: Context) -> Iterator[Progress]:
    """Train every found model on the task, starting from the supernets' weights, into students/NAME.pt."""
    found = context.record("search")["found"]
    assert isinstance(found, list)  # noqa: S101 (our own record)
    schedule = context.experiment.retrain
    for i, entry in enumerate(found):
        torch.manual_seed(context.experiment.seed)
        model = assembled(context, Architecture.parse(entry["subnet"]))
        loss = cross_entropy(model, context.train_data, schedule.batch_size, context.experiment.seed)
        key = digest(context.keys["retrain"], entry["subnet"])
        steps = train(model, loss, schedule, student_path(context, entry["name"]), key)
        yield from _progress("retrain", steps, entry["name"], i * schedule.steps, len(found) * schedule.steps)


def student_path(context: Context, name: str) -> Path:
    return context.path / "students" / f"{name}.pt"


def retrained(context: Context, name: str, architecture: Architecture) -> Segmenter:
    """A found model with its final weights."""
    model = student(context.space, architecture, len(context.train_data.classes), context.experiment.teacher.head)
    restore(model, student_path(context, name))
    return model.eval()
