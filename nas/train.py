"""The one training loop: polynomial decay, checkpoints that resume exactly.

A step is a pure function of (seed, step) and the weights, so a run that was killed and resumed ends with the
weights of one that was not. Sources: QA-BWNAS and MMSegmentation's schedule (power 0.9, floor 1e-4).
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.errors import CheckpointError, NasError
from nas.settings import STRICT

SECONDS_BETWEEN_CHECKPOINTS = 10.0


@dataclass(frozen=True)
class Schedule:
    """Optimizer and length of a training; `learning_rate` may be overridden for each parameter group.

    The papers use SGD; AdamW gets further in the few hundred steps of a demo.
    """

    steps: int
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    batch_size: int = 8
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9
    floor: float = 1e-4
    warmup_steps: int = 0
    __pydantic_config__ = STRICT


OPTIMIZERS: Mapping[str, Callable[[Any, Schedule], torch.optim.Optimizer]] = {
    "sgd": lambda groups, s: torch.optim.SGD(groups, s.learning_rate, s.momentum, weight_decay=s.weight_decay),
    "adamw": lambda groups, s: torch.optim.AdamW(groups, s.learning_rate, weight_decay=s.weight_decay),
}


@dataclass(frozen=True)
class Step:
    """A finished training step."""

    step: int
    steps: int
    loss: float


class DivergedError(NasError):
    """The loss became NaN or infinite."""


def save(path: Path, record: dict[str, Any]) -> None:
    """Write a checkpoint aside, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part, content = path.with_suffix(".part"), io.BytesIO()
    torch.save(record, content)  # straight into a file, a full disk would be torch's RuntimeError
    try:
        with part.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    part.replace(path)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's record (tensors and plain values only); `CheckpointError` if it is cut short or foreign."""
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever zip, pickle or the disk raised
        raise CheckpointError(
            f"{path}: not a whole checkpoint ({type(error).__name__}); delete it to train again"
        ) from None
    if not isinstance(record, dict) or not {"key", "model"} <= record.keys():
        raise CheckpointError(f"{path}: a checkpoint, but not of this kit; delete it to train again")
    return record


def restore(model: nn.Module, path: Path) -> None:
    """Load a checkpoint's weights into `model`; `CheckpointError` if they are damaged or another network's."""
    try:
        model.load_state_dict(load(path)["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: does not fit this network ({reason}); delete it to train again") from None


def train(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    checkpoint: Path,
    key: str,
    *,
    groups: list[dict[str, Any]] | None = None,
) -> Iterator[Step]:
    """Train `model` in place by minimising `loss(step)`, yielding each step.

    Goes on from `checkpoint` where that was written under the same `key`; a finished one is only loaded.
    `groups` are SGD parameter groups (default: all parameters at the schedule's rate).
    """
    optimizer = OPTIMIZERS[schedule.optimizer](groups or [{"params": list(model.parameters())}], schedule)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    start = _resume(model, optimizer, checkpoint, key)
    saved = time.monotonic()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    for step in range(start, schedule.steps):
        factor = (1 - step / schedule.steps) ** schedule.power
        warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = max(peak * factor, min(schedule.floor, peak)) * warmup
        value = loss(step)
        if not torch.isfinite(value):
            raise DivergedError(f"{checkpoint.stem}: the loss is {value.item()} at step {step}; lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS or step + 1 == schedule.steps:
            save(
                checkpoint,
                {"key": key, "step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()},
            )
            saved = time.monotonic()
        yield Step(step + 1, schedule.steps, float(value.detach()))
    model.eval()


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path, key: str) -> int:
    if not checkpoint.exists():
        return 0
    record = load(checkpoint)
    if record["key"] != key:
        return 0
    try:
        model.load_state_dict(record["model"])
        optimizer.load_state_dict(record["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}: does not fit this network ({str(error).splitlines()[0]}); delete it to train again"
        ) from None
    return int(record["step"])
