"""The training log: the rows of an uninterrupted training after any kill, and weights that do not depend on it."""

from __future__ import annotations

import csv
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from nas.errors import ConfigError
from nas.training import train as train_module
from nas.training.log import COLUMNS, TrainingLog, log_path
from nas.training.train import DivergedError, Schedule, train

SCHEDULE = Schedule(12, "adamw", learning_rate=0.01, warmup_steps=2)


def problem(seed: int = 0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def loss(step: int) -> torch.Tensor:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (model(x)[:, 0] - x.sum(1)).square().mean()

    return model, loss


def rows(path: Path) -> list[list[str]]:
    """Without the seconds."""
    with path.open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == list(COLUMNS)
    assert all(float(row[3]) >= 0 for row in found)
    return [row[:3] for row in found]


def test_every_training_logs_beside_its_checkpoint(tmp_path):
    model, loss = problem()
    steps = list(train(model, loss, SCHEDULE, tmp_path / "teacher.pt", "k"))
    assert log_path(tmp_path / "teacher.pt") == tmp_path / "teacher.training.csv"
    found = rows(tmp_path / "teacher.training.csv")
    assert [(int(step), float(value)) for step, value, _ in found] == [(s.step, s.loss) for s in steps]
    rates = [float(rate) for _, _, rate in found]
    assert rates[0] == pytest.approx(0.01 / 3) and max(rates) == rates[2] and rates[2:] == sorted(rates[2:])[::-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher.pt", "teacher.training.csv"]


@pytest.mark.parametrize("left", ["closed", "unflushed", "half a row", "lost"])
@pytest.mark.parametrize("killed_at", [1, 5, 11])
def test_a_resumed_log_is_that_of_an_uninterrupted_training(tmp_path, monkeypatch, killed_at, left):
    """Checkpoints are written at every third step: rows after the last one belong to weights that are lost."""
    part, log = tmp_path / "part.pt", tmp_path / "part.training.csv"
    list(train(*problem(), SCHEDULE, tmp_path / "whole.pt", "k"))
    expected = rows(tmp_path / "whole.training.csv")
    model, loss = problem()

    def saved_at_every_third(step: int) -> torch.Tensor:
        seconds = -1.0 if step % 3 == 2 else float("inf")
        monkeypatch.setattr(train_module, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
        return loss(step)

    steps = train(model, saved_at_every_third, SCHEDULE, part, "k")
    for _ in range(killed_at):
        next(steps)
    on_disk = log.read_text()  # a kill loses the rows in memory
    steps.close()
    written = log.read_text()
    done = killed_at // 3 * 3
    assert len(on_disk.splitlines()) == 1 + done and len(written.splitlines()) == 1 + killed_at
    log.write_text({"unflushed": on_disk, "half a row": written[:-3]}.get(left, written))
    if left == "lost":
        log.unlink()
    list(train(*problem(seed=9 if done else 0), SCHEDULE, part, "k"))
    assert rows(log) == (expected[done:] if left == "lost" else expected)


def test_another_key_begins_a_new_log_and_a_finished_training_leaves_it(tmp_path):
    path = tmp_path / "m.pt"
    list(train(*problem(), SCHEDULE, path, "a"))
    first = log_path(path).read_bytes()
    list(train(*problem(seed=1), SCHEDULE, path, "a"))
    assert log_path(path).read_bytes() == first
    list(train(*problem(seed=1), SCHEDULE, path, "b"))
    assert len(rows(log_path(path))) == 12 and log_path(path).read_bytes() != first


def test_a_divergence_leaves_the_rows_before_it(tmp_path):
    model, loss = problem()
    with pytest.raises(DivergedError):
        list(
            train(model, lambda step: loss(step) * (1 if step < 4 else float("nan")), SCHEDULE, tmp_path / "m.pt", "k")
        )
    assert [row[0] for row in rows(tmp_path / "m.training.csv")] == ["1", "2", "3", "4"]


class Recorder:
    """Stands in for TensorBoard's writer."""

    made: list[Recorder]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars = folder, purge_step, []
        self.closed = False
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_events_are_written_on_request_and_change_no_weight(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    stand_in: Any = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter, Recorder.made = Recorder, []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    plain, logged = problem(), problem()
    steps = list(train(*plain, SCHEDULE, tmp_path / "plain.pt", "k"))
    assert not Recorder.made

    log = TrainingLog(tmp_path / "logs" / "mine.csv", events=tmp_path / "events")
    part = train(*logged, SCHEDULE, tmp_path / "logged.pt", "k", log=log)
    for _ in range(5):
        next(part)
    part.close()
    list(train(*logged, SCHEDULE, tmp_path / "logged.pt", "k", log=log))
    for a, b in zip(plain[0].state_dict().values(), logged[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [(w.folder, w.purge_step, w.closed) for w in Recorder.made] == [
        (str(tmp_path / "events"), 1, True),
        (str(tmp_path / "events"), 6, True),
    ]
    losses = [(value, step) for w in Recorder.made for name, value, step in w.scalars if name == "loss"]
    assert losses == [(s.loss, s.step) for s in steps]
    assert {name for name, *_ in Recorder.made[0].scalars} == {"loss", "learning_rate", "seconds"}
    assert rows(tmp_path / "logs" / "mine.csv") == rows(tmp_path / "plain.training.csv")
    assert not (tmp_path / "logged.training.csv").exists()


def test_events_without_tensorboard_are_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = TrainingLog(tmp_path / "m.training.csv", events=tmp_path / "events")
    with pytest.raises(ConfigError, match="tensorboard is not installed; install it, or leave them out"):
        list(train(*problem(), SCHEDULE, tmp_path / "m.pt", "k", log=log))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the package tensorboard")
def test_tensorboard_reads_the_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path / "m.training.csv", events=tmp_path / "events")
    steps = list(train(*problem(), SCHEDULE, tmp_path / "m.pt", "k", log=log))
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [s.step for s in steps]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([s.loss for s in steps])
