"""The configuration in a bundle makes the same experiment: every stage's key is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.run.config import Overrides, load_experiment
from deploy.run.keys import stage_identities
from deploy.run.shipped import CONFIGURATIONS
from deploy.ship.provenance import CONFIGURATION, configuration
from hil.boards.catalog import find_board
from tests.deploy.tiny_experiment import write_experiment

SHIPPED = sorted(path.stem for path in (Path(__file__).parents[3] / "deploy/configs").glob("*.toml"))
BOARD = find_board(None, "loopback")


@pytest.mark.parametrize("name", [*SHIPPED, "tiny"])
def test_the_same_keys(tmp_path: Path, name: str) -> None:
    given = write_experiment(tmp_path / "given") if name == "tiny" else CONFIGURATIONS.find(name)
    experiment, space = load_experiment(given, Overrides())
    for file, text in configuration(experiment, space).items():
        (tmp_path / file).write_text(text, encoding="utf8")
    again, same_space = load_experiment(tmp_path / CONFIGURATION, Overrides())
    keys, found = (
        {stage: identity.key for stage, identity in stage_identities(*pair, [BOARD]).items()}
        for pair in ((experiment, space), (again, same_space))
    )
    assert found == keys and again.name == experiment.name and again.board == experiment.board


def test_another_setting_is_another_key(tmp_path: Path) -> None:
    experiment, space = load_experiment(write_experiment(tmp_path / "given"), Overrides())
    for file, text in configuration(experiment, space).items():
        (tmp_path / file).write_text(text.replace("seed = 0", "seed = 1"), encoding="utf8")
    again, _ = load_experiment(tmp_path / CONFIGURATION, Overrides())
    assert again.seed == 1
