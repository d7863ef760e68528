"""`bits` of a budget and `--seed`, read from a configuration and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli.runs import RunOptions, load
from deploy.run.config import Overrides, load_experiment
from nas.errors import ConfigError
from tests.deploy.tiny_experiment import write_experiment


def experiment(folder: Path, bits: str, more: str = "") -> Path:
    path = write_experiment(folder, {})
    text = path.read_text(encoding="utf8")
    name = next(line for line in text.splitlines() if "latency" in line and "name" in line)
    path.write_text(text.replace(name, name.replace(" }", f", bits = {bits} }}")) + more, encoding="utf8")
    return path


def test_the_widths_of_a_budget(tmp_path: Path) -> None:
    found, _ = load_experiment(experiment(tmp_path, "[8]"), Overrides())
    (budget,) = found.budgets
    assert budget.bits == (8,)


@pytest.mark.parametrize(
    ("bits", "more", "words"),
    [
        ("[6, 8]", "", r"budget '\w+': bits \[6, 8\]: the space has 4, 8"),
        ("[]", "", r"budget '\w+': bits \[\]: the space has 4, 8"),
        ("[8]", "\n[predictor]\nobjective = true\n", r"the predictor knows no widths; leave out its bits"),
    ],
)
def test_widths_that_mean_nothing(tmp_path: Path, bits: str, more: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_experiment(experiment(tmp_path, bits, more), Overrides())


def test_the_seed_of_the_command_line(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {})
    options = [RunOptions(config=path), RunOptions(config=path, seed=7)]
    assert [load(one)[0].seed for one in options] == [0, 7]
