"""What a network of the space is trained by: its task's loss, and what it learns from its teacher.

The loss of a step is (1 - w) x the task's + w x the soft targets' (`nas.training.soft_targets`) + b x the mean NSR of
the network's own maps at the block boundaries, against the teacher's of the same images. The last differs from the
blocks' distillation (`nas.training.distil`): each block reads what the student's blocks before it made of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.data.sample import Dataset
from nas.errors import ConfigError
from nas.networks.segmenter import Encoder, Outputs
from nas.noise import channel_variance, nsr
from nas.tasks.task import TASKS, Task, training_batches
from nas.training.device import channels_last, device_of
from nas.training.soft_targets import soft_target_loss
from nas.training.train import ParameterGroup, Schedule, decayed_apart


@dataclass(frozen=True)
class TeacherLosses:
    """What a network learns from its teacher.

    Attributes:
        soft_targets: weight w of the teacher's soft targets, 0 to 1.
        temperature: of both softmaxes.
        boundaries: weight b of the NSR at the block boundaries; 0: none.
    """

    soft_targets: float = 0.0
    temperature: float = 1.0
    boundaries: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.soft_targets <= 1:
            raise ConfigError(f"distillation {self.soft_targets}: a weight from 0 to 1")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature {self.temperature}: give a positive number")
        if not 0 <= self.boundaries < math.inf:
            raise ConfigError(f"boundaries {self.boundaries}: a weight of 0 or more")

    @property
    def is_none(self) -> bool:
        return not (self.soft_targets or self.boundaries)


NO_TEACHER_LOSSES = TeacherLosses()


def network_loss(
    model: Encoder,
    data: Dataset,
    batch_size: int,
    seed: int,
    *,
    teacher: Encoder | None = None,
    teacher_losses: TeacherLosses = NO_TEACHER_LOSSES,
) -> Callable[[int], Tensor]:
    """The loss of `model` on its device as a function of the step.

    `teacher` is in evaluation mode and of the same space; it is not run where no loss asks for it.
    """
    task, device = TASKS[data.task], device_of(model)
    batch = training_batches(data, batch_size, seed, device)
    if teacher_losses.is_none:
        teacher = None

    def loss(step: int) -> Tensor:
        images, labels = batch(step)
        images = channels_last(images, device)
        made = model.outputs(images)
        value = _hard(task, made, labels.to(device))
        if teacher is None:
            return value
        with torch.no_grad():
            taught = teacher.outputs(images)
        if teacher_losses.soft_targets:
            soft = soft_target_loss(made.logits, taught.logits, teacher_losses.temperature)
            value = (1 - teacher_losses.soft_targets) * value + teacher_losses.soft_targets * soft
        if teacher_losses.boundaries:
            value = value + teacher_losses.boundaries * boundary_nsr(made, taught)
        return value

    return loss


def _hard(task: Task, made: Outputs, labels: Tensor) -> Tensor:
    value = task.loss(made.logits.float(), labels)
    if made.auxiliary is not None:
        value = value + made.auxiliary_weight * task.loss(made.auxiliary.float(), labels)
    return value


def boundary_nsr(made: Outputs, taught: Outputs) -> Tensor:
    """The mean NSR of the maps that leave the blocks, the teacher's being the signal."""
    pairs = zip(taught.maps[1:], made.maps[1:], strict=True)
    return torch.stack([nsr(t.float(), y.float(), channel_variance(t.float())) for t, y in pairs]).mean()


def network_groups(model: Encoder, schedule: Schedule) -> list[ParameterGroup]:
    """The encoder; its layers beyond the teacher's depth; what is behind it: each at the schedule's multiple."""
    known, new = nn.ModuleList([model.stem, model.first]), nn.ModuleList()
    for block, taught in zip(model.blocks, model.space.teacher_layers, strict=True):
        for i, layer in enumerate(block.children()):
            (known if i < len(taught) else new).append(layer)
    encoder = ("stem", "first", "blocks")
    head = nn.ModuleList(part for name, part in model.named_children() if name not in encoder)
    rate = schedule.learning_rate
    parts = ((known, 1.0), (new, schedule.new_multiplier), (head, schedule.head_multiplier))
    return [group for part, multiple in parts for group in decayed_apart(part, rate * multiple)]
