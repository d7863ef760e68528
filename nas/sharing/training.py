"""Training a full-network supernet on the task; methods differ in the paths of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from nas.data import Dataset
from nas.data.augment import training_augment
from nas.data.batches import training_batch
from nas.sharing import fairnas, spos
from nas.sharing.supernet import Path, Supernet
from nas.space import SearchSpace
from nas.tasks.task import TASKS
from nas.training.device import channels_last, device_of

Sampler = Callable[[SearchSpace, int, int], list[Path]]
"""From (space, seed, step) to the paths whose losses the step sums."""

SAMPLERS: Mapping[str, Sampler] = {"spos": spos.paths, "fairnas": fairnas.paths}


def shared_losses(
    model: Supernet, data: Dataset, sampler: Sampler, *, batch_size: int, seed: int
) -> Callable[[int], Iterator[Tensor]]:
    """The task's loss of each path of a step, all on one batch, as a function of the step.

    `train` sums their gradients; memory is that of one path.
    """
    augment, task = training_augment(data), TASKS[data.task]

    def losses(step: int) -> Iterator[Tensor]:
        images, labels = training_batch(data, step, batch_size=batch_size, augment=augment, seed=seed)
        device = device_of(model)
        images, labels = channels_last(images, device), labels.to(device)
        for path in sampler(model.space, seed, step):
            yield task.loss(model(images, path).float(), labels)

    return losses
