"""`hilnas lut latency --repair` within its own budget: a tenth of the table's board time brings the ranks back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import hil.sessions
from deploy.cli import main
from hil.store import Store
from tests.deploy.pipeline.planted_board import BOARDS, PlantedSession
from tests.deploy.tiny_experiment import record, write_experiment

SPACE = """
name = "small-pairs"
stem_channels = 8
first_channels = 8
kernels = [3, 5]
expansions = [3, 6]
bits = [8]
blocks = [
    { stride = 2, channels = 8, layers = 3, teacher_layers = 1 },
    { stride = 1, channels = 8, layers = 2, teacher_layers = 1 },
    { stride = 1, channels = 8, layers = 3, teacher_layers = 1 },
]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its NSR tables."""
    base = tmp_path_factory.mktemp("budget")
    changes = {"models = 4\ntau = -1.0": "models = 48\ntau = 0.97", "runs = 3\nrounds = 1": "runs = 3\nrounds = 2"}
    config = write_experiment(base, changes)
    (base / "space.toml").write_text(SPACE)
    (base / "boards.toml").write_text(BOARDS)
    assert main(["loop", *options(config, base / "runs"), "--until", "tables"]) == 0
    return config


def options(config: Path, runs: Path) -> list[str]:
    boards = str(config.parent / "boards.toml")
    return ["--config", str(config), "--runs-dir", str(runs), "--boards", boards, "--board", "planted"]


@pytest.fixture
def runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("HILNAS_BOARD", "HILNAS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(hil.sessions.SESSION_KINDS, "replay", PlantedSession)  # type: ignore[misc]
    shutil.copytree(config.parent / "runs", tmp_path / "runs")
    yield tmp_path / "runs"


def board_s(folder: Path) -> float:
    with Store(folder / "measurements.sqlite") as store:
        return sum(m.board_us for m in store.all()) / 1e6


def agreed(config: Path, runs: Path) -> tuple[float, float]:
    """tau-b of the table, and the board seconds that it took."""
    assert main(["lut", "latency", *options(config, runs)]) == 0
    table_s = board_s(runs / "tiny")
    assert main(["agree", *options(config, runs)]) in (0, 1)
    return record(runs / "tiny" / "agreement.json")["agreement"]["tau_b"], table_s


def test_a_tenth_of_the_tables_time_brings_the_ranks_back(config, runs, monkeypatch):
    monkeypatch.setattr(PlantedSession, "stem_us", 1000.0)
    before, table_s = agreed(config, runs)
    spent_s = board_s(runs / "tiny")
    assert main(["lut", "latency", "--repair", *options(config, runs)]) == 0
    after = record(runs / "tiny" / "agreement.json")
    assert 0.85 < before < 0.95 and after["agreement"]["tau_b"] >= 0.97 and after["gate"]["holds"]
    [done] = after["repairs"]
    assert done["boundaries"] == ["stem|b1"] and done["graphs"] >= 8
    assert 0 < board_s(runs / "tiny") - spent_s <= 0.1 * table_s


def test_noise_alone_costs_no_board_time(config, runs, monkeypatch):
    monkeypatch.setattr(PlantedSession, "noise", 0.03)
    before, _ = agreed(config, runs)
    spent_s = board_s(runs / "tiny")
    main(["lut", "latency", "--repair", *options(config, runs)])
    assert before < 0.97 and board_s(runs / "tiny") == spent_s
