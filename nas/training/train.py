"""The one training loop: polynomial decay, mixed precision, checkpoints that resume exactly.

A step is a pure function of (seed, step) and the weights, so a run that was killed and resumed ends with the
weights of one that was not (on a GPU: as far as its kernels repeat themselves). Sources: QA-BWNAS and
MMSegmentation's schedule (power 0.9, from 0.01 to 1e-4); the moving average is Polyak's, as Tan and Le keep it
(EfficientNet, arXiv 1905.11946, section 5).
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from nas.atomic import write_atomically
from nas.errors import CheckpointError, ConfigError, NasError
from nas.settings import STRICT
from nas.training.device import FLOAT32, Compute, device_of
from nas.training.log import TrainingLog, log_path

SECONDS_BETWEEN_CHECKPOINTS = 10.0

Loss: TypeAlias = Callable[[int], Tensor | Iterable[Tensor]]
"""From a step to its loss, or to parts of it that share no weights; a part's activations are freed before the next."""


@dataclass(frozen=True)
class Schedule:
    """Optimizer and length of a training. The papers use SGD; AdamW gets further in the few hundred steps of a demo.

    Attributes:
        steps: of the whole training, a batch each.
        optimizer: of torch.
        learning_rate: at its peak; may be overridden for each parameter group.
        batch_size: images per step.
        momentum: of SGD.
        warmup_steps: over which the learning rate rises to its peak.
        weight_decay: of convolutions; batch norms and biases have none.
        power: of the polynomial decay.
        floor: the lowest learning rate, as a share of the peak.
        average: decay of the weights' moving average, which is what the training ends with; 0: the last weights.
        head_multiplier: of the learning rate of what is behind the encoder.
        new_multiplier: of that of a student's layers that the teacher has not.
    """

    steps: int
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    batch_size: int = 8
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9
    floor: float = 0.01
    warmup_steps: int = 0
    average: float = 0.0
    head_multiplier: float = 1.0
    new_multiplier: float = 1.0
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"floor {self.floor}: it is a share of the peak learning rate; give 0 to 1")
        if not 0 <= self.average < 1:
            raise ConfigError(f"average {self.average}: a moving average's decay is 0 (none) to below 1")
        if min(self.head_multiplier, self.new_multiplier) <= 0:
            raise ConfigError("head_multiplier and new_multiplier must be positive")


OPTIMIZERS: Mapping[str, Callable[[Any, Schedule], torch.optim.Optimizer]] = {
    "sgd": lambda groups, s: torch.optim.SGD(groups, s.learning_rate, s.momentum, weight_decay=s.weight_decay),
    "adamw": lambda groups, s: torch.optim.AdamW(groups, s.learning_rate, weight_decay=s.weight_decay),
}


class ParameterGroup(TypedDict):
    """A group as torch's optimizers take it."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: NotRequired[float]


def decayed_apart(module: nn.Module, learning_rate: float) -> list[ParameterGroup]:
    """The module's parameters in two groups: convolutions, and what weight decay would only pull off its place."""
    weights = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups: list[ParameterGroup] = []
    if weights:
        groups.append({"params": weights, "lr": learning_rate})
    if others:
        groups.append({"params": others, "lr": learning_rate, "weight_decay": 0.0})
    return groups


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
    """A checkpoint's record (tensors and plain values only); `CheckpointError` if it is truncated or foreign."""
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever zip, pickle or the disk raised
        raise CheckpointError(
            f"{path}: not a complete checkpoint ({type(error).__name__}); delete it to train again"
        ) from None
    if not isinstance(record, dict) or not {"key", "model"} <= record.keys():
        raise CheckpointError(f"{path}: a checkpoint, but not of this kit; delete it to train again")
    return record


def restore(model: nn.Module, path: Path, key: str | None = None) -> None:
    """Load a checkpoint's weights into `model`.

    Raises `CheckpointError` if they are damaged, of another network or, where a `key` is given, of another key.
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
    groups: list[ParameterGroup] | None = None,
    compute: Compute = FLOAT32,
    log: TrainingLog | None = None,
) -> Iterator[Step]:
    """Train `model` in place, on its device, by minimising `loss(step)`, yielding each step.

    Resumes from `checkpoint` where that was written under the same `key`; a finished one is only loaded. `groups` are
    the optimizer's parameter groups (default: all parameters at the schedule's rate, `decayed_apart`). Of `compute`,
    only the precision is used. Without a `log` the steps are logged beside the checkpoint
    (`nas.training.log.log_path`).
    """
    device = device_of(model)
    scaler = compute.scaler(device)
    optimizer = OPTIMIZERS[schedule.optimizer](groups or decayed_apart(model, schedule.learning_rate), schedule)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    record = _started(checkpoint, key)
    start = int(record["step"]) if record else 0
    if record:
        _resume(model, None if start >= schedule.steps else optimizer, scaler, record, checkpoint)
    average = _Average.of(model, schedule.average, (record or {}).get("average")) if schedule.average else None
    log = log or TrainingLog(log_path(checkpoint))
    if start < schedule.steps:
        log.begin(start)
    saved = time.monotonic()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    with closing(log):
        for step in range(start, schedule.steps):
            began = time.monotonic()
            _set_rates(optimizer, peaks, schedule, step)
            optimizer.zero_grad(set_to_none=True)
            value = float(_backward(loss, step, compute, scaler, device))
            if not math.isfinite(value):
                raise DivergedError(f"{checkpoint.stem}: the loss is {value} at step {step}; lower learning_rate")
            scaler.step(optimizer)
            scaler.update()
            ended = step + 1 == schedule.steps
            if average is not None:
                average.add(model, step)
                if ended:
                    model.load_state_dict(average.state)
            log.add(step + 1, value, optimizer.param_groups[0]["lr"], time.monotonic() - began)
            if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS or ended:
                log.flush()
                states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                if average is not None and not ended:
                    states["average"] = average.state
                save(checkpoint, {"key": key, "step": step + 1, **states, "scaler": scaler.state_dict()})
                saved = time.monotonic()
            yield Step(step + 1, schedule.steps, value)
    model.eval()


@dataclass(frozen=True, eq=False)
class _Average:
    """The moving average of all weights and statistics; counts (integers) are the last ones.

    The decay grows from 0.1 to what is asked for, so that the first steps' weights are soon forgotten.
    """

    decay: float
    state: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, decay: float, state: Mapping[str, Tensor] | None) -> _Average:
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        for name, value in (state or {}).items():
            own[name].copy_(value)
        return cls(decay, own)

    @torch.no_grad()
    def add(self, model: nn.Module, step: int) -> None:
        new = model.state_dict()
        floats = [name for name, value in self.state.items() if value.is_floating_point()]
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([self.state[name] for name in floats], [new[name] for name in floats], share)
        for name in self.state.keys() - set(floats):
            self.state[name].copy_(new[name])


def _set_rates(optimizer: torch.optim.Optimizer, peaks: Sequence[float], schedule: Schedule, step: int) -> None:
    """Polynomial decay from each group's peak to its floor, after a linear warm-up."""
    factor = max((1 - step / schedule.steps) ** schedule.power, schedule.floor)
    warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak * factor * warmup


def _backward(loss: Loss, step: int, compute: Compute, scaler: torch.amp.GradScaler, device: torch.device) -> Tensor:
    """Add the step's gradients to the parameters, part by part; returns the total loss."""
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
    """The record to resume from: that of the same settings."""
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
