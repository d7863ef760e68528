"""False alarms of `hilnas regress`, and planted slowdowns that it finds: the short form of regression_alarms.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.session import Session
from hil.store import Store
from tests.benchmarks.regression_alarms import LENGTH, SLOWER_LENGTH, Experiment, run_experiment

MOST_ALARMS, LEAST_FOUND = 0.01, 0.95
SAME, PLANTED = 30, 20


def experiment(benchmark, folder: Path, length: int, comparisons: int) -> Experiment:
    with (
        open_board(BoardConfig("loopback", "loopback")) as board,
        Session(board) as session,
        Store(folder / "s.sqlite") as store,
    ):
        return benchmark.pedantic(run_experiment, (session, store, length, comparisons), rounds=1)


@pytest.mark.benchmark(group="regression")
def test_regression_false_alarms(benchmark, tmp_path):
    found = experiment(benchmark, tmp_path, LENGTH, SAME)
    rate = found.cried / SAME
    benchmark.extra_info.update(found.to_json())
    benchmark.extra_info.update(
        figure=rate, unit=f"as a share of {SAME} A/A comparisons", limit=MOST_ALARMS, holds=rate <= MOST_ALARMS
    )


@pytest.mark.benchmark(group="regression")
def test_regression_found(benchmark, tmp_path):
    """5 % more convolutions, against a threshold of 2 %."""
    found = experiment(benchmark, tmp_path, SLOWER_LENGTH, PLANTED)
    rate = found.cried / PLANTED
    benchmark.extra_info.update(found.to_json())
    benchmark.extra_info.update(
        figure=rate, unit=f"as a share of {PLANTED} planted slowdowns", limit=LEAST_FOUND, holds=rate >= LEAST_FOUND
    )
