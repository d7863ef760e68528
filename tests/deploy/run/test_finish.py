"""The quantization-aware finish of a run's student: made and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.networks import assembled, finish_path, finishing, has_finish, retrained, retraining, student_path
from deploy.run.settings.training import Retrain
from nas.errors import ConfigError
from nas.space import Architecture
from nas.training.train import Schedule
from tests.deploy.tiny_experiment import REPOSITORY, Finished, finished_run, record, write_experiment


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_student_is_finished_and_read_back(finished: Finished, tmp_path: Path, bits: int):
    folder = finished.copy(tmp_path / "runs")
    config = write_experiment(
        tmp_path, {"[retrain]\n": "[retrain]\nquantization_aware_steps = 3\ndistillation = 0.5\n"}
    )
    selected = Architecture.parse(record(folder / "search.json")["selected"][0]["subnet"])
    architecture = Architecture(tuple(replace(subnet, bits=bits) for subnet in selected.subnets))
    with Run(folder) as opened:
        context = Context(*load_experiment(config, Overrides()), opened, REPOSITORY / "boards.toml")
        assert has_finish(context)
        model = assembled(context, architecture)
        for _ in retraining(context, model, Schedule(steps=2, batch_size=4), student_path(context, "student"), "k"):
            pass
        before = retrained_weights(model)
        steps = list(finishing(context, model, architecture, finish_path(context, "student"), "k"))
        assert [step.step for step in steps] == [1, 2, 3] and finish_path(context, "student").exists()
        assert not all(torch.equal(a, b) for a, b in zip(before, retrained_weights(model), strict=True))
        read = retrained(context, "student", architecture)
        for ours, theirs in zip(retrained_weights(read), retrained_weights(model), strict=True):
            torch.testing.assert_close(ours, theirs)


def retrained_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


def test_the_finish_s_schedule_is_the_retrainings_at_a_tenth():
    options = Retrain(steps=50, learning_rate=0.02, warmup_steps=5, quantization_aware_steps=7, optimizer="adamw")
    assert options.finish == Schedule(steps=7, learning_rate=0.002, optimizer="adamw")
    with pytest.raises(ConfigError, match=r"retrain\.quantization_aware_steps -1: give 0"):
        Retrain(steps=5, quantization_aware_steps=-1)
