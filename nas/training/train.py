"""The one training loop: polynomial decay, mixed precision, checkpoints that resume exactly.

A step is a pure function of (seed, step) and the weights, so a run that was killed and resumed ends with the
weights of one that was not (on a GPU: as far as its kernels repeat themselves). Sources: QA-BWNAS and
MMSegmentation's schedule (power 0.9, floor 1e-4).
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from nas.atomic import write_atomically
from nas.errors import CheckpointError, NasError
from nas.settings import STRICT
from nas.training.device import FLOAT32, Compute, device_of

SECONDS_BETWEEN_CHECKPOINTS = 10.0

Loss: TypeAlias = Callable[[int], Tensor | Iterable[Tensor]]
"""Of a step: the loss, or parts of it that share no weights. A part's activations are freed before the next is made."""


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
    """Write a checkpoint, atomically."""
    content = io.BytesIO()
    torch.save(record, content)  # straight into a file, a full disk would be torch's RuntimeError
    write_atomically(path, content.getbuffer())


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


def restore(model: nn.Module, path: Path, key: str | None = None) -> None:
    """Load a checkpoint's weights into `model`.

    Raises `CheckpointError` if they are damaged, another network's or, where a `key` is given, written under another.
    """
    record = load(path)
    if key is not None and record["key"] != key:
        raise CheckpointError(
            f"{path}: trained under other settings ({record['key']}, these are {key}); delete it to train again"
        )
    try:
        model.load_state_dict(record["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: does not fit this network ({reason}); delete it to train again") from None


def train(
    model: nn.Module,
    loss: Loss,
    schedule: Schedule,
    checkpoint: Path,
    key: str,
    *,
    groups: list[dict[str, Any]] | None = None,
    compute: Compute = FLOAT32,
) -> Iterator[Step]:
    """Train `model` in place, on the device it is on, by minimising `loss(step)`, yielding each step.

    Goes on from `checkpoint` where that was written under the same `key`; a finished one is only loaded.
    `groups` are SGD parameter groups (default: all parameters at the schedule's rate). Of `compute`, the precision
    counts.
    """
    device = device_of(model)
    scaler = compute.scaler(device)
    optimizer = OPTIMIZERS[schedule.optimizer](groups or [{"params": list(model.parameters())}], schedule)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    record = _started(checkpoint, key)
    start = int(record["step"]) if record else 0
    if record:
        _resume(model, None if start >= schedule.steps else optimizer, scaler, record, checkpoint)
    saved = time.monotonic()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    for step in range(start, schedule.steps):
        factor = (1 - step / schedule.steps) ** schedule.power
        warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = max(peak * factor, min(schedule.floor, peak)) * warmup
        optimizer.zero_grad(set_to_none=True)
        value = float(_backward(loss, step, compute, scaler, device))
        if not math.isfinite(value):
            raise DivergedError(f"{checkpoint.stem}: the loss is {value} at step {step}; lower learning_rate")
        scaler.step(optimizer)
        scaler.update()
        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS or step + 1 == schedule.steps:
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
            save(checkpoint, {"key": key, "step": step + 1, **states})
            saved = time.monotonic()
        yield Step(step + 1, schedule.steps, value)
    model.eval()


def _backward(loss: Loss, step: int, compute: Compute, scaler: torch.amp.GradScaler, device: torch.device) -> Tensor:
    """Add the step's gradients to the parameters, part by part; the whole loss."""
    with compute.autocast(device):
        value = loss(step)
    parts = iter([value] if isinstance(value, Tensor) else value)
    total = torch.zeros((), device=device)
    while True:
        with compute.autocast(device):  # not the backward pass, which takes the types that the forward pass took
            part = next(parts, None)
        if part is None:
            return total
        scaler.scale(part).backward()
        total = total + part.detach()


def finished(checkpoint: Path, key: str, steps: int) -> bool:
    """Whether a training of `steps` under `key` has ended."""
    record = _started(checkpoint, key)
    return record is not None and int(record["step"]) >= steps


def _started(checkpoint: Path, key: str) -> dict[str, Any] | None:
    """The record to go on from: that of the same settings."""
    if not checkpoint.exists():
        return None
    record = load(checkpoint)
    return record if record["key"] == key else None


def _resume(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    scaler: torch.amp.GradScaler,
    record: dict[str, Any],
    checkpoint: Path,
) -> None:
    """Load a record; without `optimizer` only the weights."""
    try:
        model.load_state_dict(record["model"])
        if optimizer is not None:
            optimizer.load_state_dict(record["optimizer"])
            scaler.load_state_dict(record.get("scaler", {}))
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}: does not fit this network ({str(error).splitlines()[0]}); delete it to train again"
        ) from None
