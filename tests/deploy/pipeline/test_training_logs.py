"""Every training logs its steps beside its checkpoint, and on request for TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from deploy.cli import main
from tests.deploy.tiny_experiment import arguments, one_line, write_experiment

STEPS = [str(step) for step in range(1, 31)]


def steps_in(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["step"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_every_training_leaves_its_curve(tmp_path: Path, options: tuple[str, ...]) -> None:
    config = write_experiment(tmp_path)
    assert main(["distil", *arguments(config, tmp_path / "runs", *options)]) == 0
    run = tmp_path / "runs" / "tiny"
    of_blocks = ("supernets-b1", "supernets-b2") if options else ("supernets",)
    for name in ("teacher", *of_blocks):
        assert steps_in(run / f"{name}.training.csv") == STEPS
    assert not (run / "tensorboard").exists()


def test_tensorboard_reads_the_same_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = write_experiment(tmp_path)
    assert main(["teacher", *arguments(config, tmp_path / "runs", "--tensorboard")]) == 0
    run = tmp_path / "runs" / "tiny"
    events = EventAccumulator(str(run / "tensorboard" / "teacher"))
    events.Reload()
    with (run / "teacher.training.csv").open(newline="") as file:
        written = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("loss")] == written


def test_without_tensorboard_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = write_experiment(tmp_path)
    assert main(["teacher", *arguments(config, tmp_path / "runs", "--tensorboard")]) == 2
    one_line(capsys.readouterr().err, "tensorboard is not installed")
