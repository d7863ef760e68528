"""Knowledge distillation for retraining: the teacher's soft targets beside the labels.

Source: Hinton et al., arXiv 1503.02531, section 2: (1 - w) x the task's loss + w x T^2 x KL(teacher || student), both
softmaxes at temperature T; T^2 keeps the gradients' size whatever T is. For a segmenter it is taken at every position
of the class map, before upsampling (pixel-wise distillation; Liu et al., arXiv 1903.04197, with T = 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError

Forward: TypeAlias = Callable[[Tensor], Tensor]  # images (N, 3, H, W) to logits (N, classes, ...)
Loss: TypeAlias = Callable[[int], Tensor]  # of a training step


def soft_target_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T^2 x KL(targets || logits) at temperature T, the mean over all but the classes: (N, classes, ...) to ().

    Raises `ConfigError` where the two differ in shape: a teacher of another task or image size.
    """
    if logits.shape != targets.shape:
        raise ConfigError(
            f"distillation: the teacher's logits are {tuple(targets.shape)}, the student's {tuple(logits.shape)}; "
            "distil from a teacher of the same classes and output stride"
        )
    student, teacher = (F.log_softmax(x.float() / temperature, 1) for x in (logits, targets))
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence.mean()


def distilled(
    task: Callable[[Forward], Loss], model: Forward, teacher: Forward, *, weight: float, temperature: float = 1.0
) -> Loss:
    """The task's loss and the soft targets', weighted 1 - `weight` to `weight`; the same batch for both.

    `task(forward)` is the task's loss as a function of the step; it calls `forward` once per step. `teacher` is in
    evaluation mode. Weight 0 is the task's loss alone, and the teacher is never run.
    """
    if weight == 0:
        return task(model)
    soft: list[Tensor] = []

    def forward(images: Tensor) -> Tensor:
        logits = model(images)
        with torch.no_grad():
            targets = teacher(images)
        soft.append(soft_target_loss(logits, targets, temperature))
        return logits

    hard = task(forward)

    def loss(step: int) -> Tensor:
        value = hard(step)  # forward ran in here
        return (1 - weight) * value + weight * soft.pop()

    return loss
