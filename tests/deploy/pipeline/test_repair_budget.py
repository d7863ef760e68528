"""`hilnas lut latency --repair` within its own budget: a tenth of the table's board time brings the ranks back."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli import main
from hil.store import Store
from tests.deploy.pipeline.planted_board import PlantedSession, copied_runs, options, planted_run
from tests.deploy.tiny_experiment import record


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_run(tmp_path_factory.mktemp("budget"), (3, 2, 3), models=48)


@pytest.fixture
def runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied_runs(config, tmp_path, monkeypatch)


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
