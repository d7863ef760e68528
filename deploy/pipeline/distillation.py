"""The stage that trains every block's supernet on the teacher's feature maps: in one loop, or side by side."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deploy.formats.digest import digest
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from nas.data.ahead import made_ahead
from nas.data.augment import training_augment
from nas.data.batches import training_batch
from nas.engine.local import Local
from nas.errors import EngineError
from nas.networks.blocks import SuperBlock
from nas.space import SearchSpace
from nas.training import train as training
from nas.training.distil import block_losses, parameter_groups
from nas.training.features import GB, Features, ViewFeatures, Views, fresh, map_shapes, open_cache, weights_digest
from nas.training.train import Step, finished, restore, save, train


@dataclass(frozen=True)
class BlockTask:
    """One block's training, for a worker that sees the run's folder."""

    experiment: Experiment
    space: SearchSpace
    folder: Path
    boards_file: Path | None
    block: int
    checkpoint_every_s: float
    tensorboard: bool

    def __str__(self) -> str:
        return f"block {self.block}'s distillation"


def distil(context: Context) -> Iterator[Progress]:
    """Train every block's supernet, into supernets.pt: in one loop, or each in a worker of the run's engine.

    Workers are of one thread: their weights are those of a loop on one thread bit for bit.
    """
    settings, checkpoint = context.experiment.distil, context.path / "supernets.pt"
    steps, blocks = settings.schedule.steps, range(1, len(context.space.blocks) + 1)
    if _separately(context) and not finished(checkpoint, context.keys["distil"], steps):
        yield from _side_by_side(context, blocks, checkpoint)
    else:
        for done in train_blocks(context, blocks, checkpoint):
            yield Progress("distil", done.step, done.steps, f"loss {done.loss:.3f}")
    shutil.rmtree(_parts(context.path), ignore_errors=True)


def _separately(context: Context) -> bool:
    """Whether blocks go to workers: not with one worker, nor on one GPU, which one loop fills."""
    gpu = context.experiment.compute.place().type == "cuda"
    return context.engine != Local() and not (gpu and torch.cuda.device_count() == 1)


def _side_by_side(context: Context, blocks: Sequence[int], checkpoint: Path) -> Iterator[Progress]:
    """Each block as a task of the run's engine. One whose checkpoint is complete is not trained again."""
    experiment, key = context.experiment, context.keys["distil"]
    steps = experiment.distil.schedule.steps
    features = _features(context, experiment.compute.place(), blocks[-1])
    if isinstance(features, ViewFeatures):
        features.fill()  # once, before all of them would
    del features  # the teacher's place on the GPU
    folder, boards_file = context.path.resolve(), context.boards_file
    every_s = training.SECONDS_BETWEEN_CHECKPOINTS
    tasks = [
        BlockTask(experiment, context.space, folder, boards_file, block, every_s, context.tensorboard)
        for block in blocks
    ]
    with closing(context.engine.each(_train_block, tasks)) as ended:
        for done, (task, loss) in enumerate(ended, start=1):
            text = "" if loss is None else f" loss {loss:.3f}"
            yield Progress("distil", done * steps, len(blocks) * steps, f"block {task.block}{text}")
    model = context.untrained_supernets()
    for supernet, block in zip(model, blocks, strict=True):
        part = _part(folder, block)
        if not part.exists():
            raise EngineError(f"{part}: a worker made it, but not here: put --runs-dir on storage they share")
        restore(nn.ModuleList([supernet]), part, key)
    save(checkpoint, {"key": key, "step": steps, "model": model.state_dict()})


def _train_block(task: BlockTask) -> float | None:
    """In a worker: train one block into its checkpoint; the last loss, None if it had been trained before."""
    training.SECONDS_BETWEEN_CHECKPOINTS = task.checkpoint_every_s
    context = Context(
        task.experiment, task.space, Run.borrowed(task.folder), task.boards_file, tensorboard=task.tensorboard
    )
    loss = None
    for step in train_blocks(context, [task.block], _part(task.folder, task.block), task.block - 1):
        loss = step.loss
    return loss


def train_blocks(context: Context, blocks: Sequence[int], checkpoint: Path, number: int = 0) -> Iterator[Step]:
    """Train some of the blocks (numbered from 1) in one loop; what they become does not depend on the others.

    `number` is this process's turn among the GPUs.
    """
    experiment = context.experiment
    settings, device = experiment.distil, experiment.compute.place(number)
    wanted = [b for b in context.started_supernets() if isinstance(b, SuperBlock) and b.block in blocks]
    model = nn.ModuleList(wanted).to(device)
    rates = settings.learning_rates
    groups = parameter_groups(model, rates if len(rates) == 1 else [rates[block - 1] for block in blocks])
    features = _features(context, device, blocks[-1])
    loss = block_losses(model, features, experiment.seed)
    key = context.keys["distil"]
    name = "supernets" if len(blocks) == len(context.space.blocks) else f"supernets-b{blocks[0]}"
    log = context.training_log(context.path / f"{name}.pt")
    return train(model, loss, settings.schedule, checkpoint, key, groups=groups, compute=experiment.compute, log=log)


def _features(context: Context, device: torch.device, last: int) -> Features:
    """The teacher's maps up to what leaves block `last`."""
    experiment, data = context.experiment, context.train_data
    settings, compute, seed = experiment.distil, experiment.compute, experiment.seed
    batch_size = settings.schedule.batch_size
    teacher = copy.deepcopy(context.teacher).to(device)
    if settings.views is None:
        del teacher.blocks[last:]
        augment = training_augment(data)

        def images(step: int) -> Tensor:
            return training_batch(data, step, batch_size=batch_size, augment=augment, seed=seed)[0]

        return fresh(teacher, made_ahead(images, device), compute)
    views, cache = Views(data, settings.views, seed), None
    if settings.cache_gb:
        # Data is identified by its settings (in the teacher's key), not by the bytes of its files.
        made = views.count, str(compute.dtype(device)), device.type
        key = digest(weights_digest(teacher), context.keys["teacher"], *made)
        limit = (len(views), int(settings.cache_gb * GB))
        shapes = map_shapes(context.space, views.size)
        cache = open_cache(context.path / "features", key, shapes, compute.dtype(device), limit)
    return ViewFeatures(teacher, views, batch_size, compute, cache)


def _parts(folder: Path) -> Path:
    return folder / "blocks"


def _part(folder: Path, block: int) -> Path:
    return _parts(folder) / f"b{block}.pt"
