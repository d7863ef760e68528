"""ResNet18 and ResNet50, LCPAQ's reference networks, trained on a run's data beside the loop's stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from deploy.formats.digest import digest
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.keys import STAGE_VERSIONS, settings_of
from nas.errors import ConfigError
from nas.networks.resnet import ResNet, ResNetForm
from nas.tasks.task import TASKS, training_loss
from nas.training.device import on_its_device
from nas.training.train import restore, train

NAMES = "resnet18, resnet50"


def form_in(experiment: Experiment, name: str) -> ResNetForm | None:
    """The ResNet that `name` means; None for a budget's model, which comes first, and others."""
    return None if name in {budget.name for budget in experiment.budgets} else ResNetForm.parse(name)


def key_of(context: Context, form: ResNetForm) -> str:
    """A digest of what the weights are a function of."""
    e = context.experiment
    trained = [settings_of(section) for section in (e.data, e.teacher.schedule, e.compute)]
    return digest("resnet", form.depth, STAGE_VERSIONS["teacher"], form.width, e.seed, *trained)


def checkpoint(context: Context, name: str) -> Path:
    return context.path / "lcpaq" / name / "network.pt"


def untrained(context: Context, form: ResNetForm) -> ResNet:
    """The network with new weights; `ConfigError` where the run's data is not for classification."""
    data = context.train_data
    if ResNet not in TASKS[data.task].folds:
        raise ConfigError(
            f"resnet{form.depth} is a classifier, and data '{data.name}' is for {data.task}: try --data shapes"
        )
    torch.manual_seed(context.experiment.seed)
    return ResNet(len(data.classes), context.experiment.data.size, form)


def train_resnet(context: Context, name: str, form: ResNetForm) -> Iterator[Progress]:
    """Train by the teacher's schedule, into RUN/lcpaq/NAME/network.pt; what is trained is not trained again."""
    model = untrained(context, form)
    experiment, schedule = context.experiment, context.experiment.teacher.schedule
    device = experiment.compute.place()
    model.to(device)
    context.check_val_data()
    loss = training_loss(on_its_device(model), context.train_data, schedule.batch_size, experiment.seed, device=device)
    path, key = checkpoint(context, name), key_of(context, form)
    for step in train(model, loss, schedule, path, key, compute=experiment.compute, log=context.training_log(path)):
        yield Progress(name, step.step, step.steps, f"loss {step.loss:.3f}")


def trained(context: Context, name: str, form: ResNetForm) -> ResNet:
    """What `train_resnet` left; `CheckpointError` if it is damaged or trained under other settings."""
    model = untrained(context, form)
    restore(model, checkpoint(context, name), key_of(context, form))
    return model.eval()
