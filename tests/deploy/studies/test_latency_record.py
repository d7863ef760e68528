"""A board's latencies of a whole space in one file: interrupted, gone on with, and what is in it."""

from __future__ import annotations

import signal
import time

import pytest

from deploy.cli import main
from deploy.run.config import Overrides, load_experiment
from deploy.run.shipped import load_space
from deploy.studies.latency.record import Recorded
from nas.space import Architecture
from nas.table import Table
from tests.deploy.tiny_experiment import (
    AGREEMENT_MODELS,
    AGREEMENT_ROUNDS,
    PROFILE_ROUNDS,
    SUBNETS,
    TIMED,
    arguments,
    finished_run,
    run,
    start,
    stored,
)

NETWORKS = 32  # all of the space: a recording wants more


@pytest.fixture
def finished(tmp_path, tmp_path_factory):
    whole = finished_run(tmp_path_factory)
    return whole.config, whole.copy(tmp_path / "runs")


def test_a_killed_recording_goes_on_and_measures_nothing_twice(finished, tmp_path):
    config, folder = finished
    command = ["lut", "latency", "record", str(tmp_path / "r.parquet"), *arguments(config, folder.parent)]
    before = stored(folder)
    process = start(command, held=("record", NETWORKS + 8))  # after it compiled as many, while it measures them
    deadline = time.monotonic() + 300
    while len(stored(folder)) < len(before) + 4:
        assert time.monotonic() < deadline and process.process.poll() is None, process.said
        time.sleep(0.02)
    process.end(signal.SIGKILL)
    kept = stored(folder)
    assert kept[: len(before)] == before and not (tmp_path / "r.parquet").exists()
    ended = run(*command)
    assert ended.returncode == 0, ended.stderr
    rows = stored(folder)
    assert rows[: len(kept)] == kept and len(rows) > len(kept), "killed too late to show anything"
    again = run(*command)
    assert again.returncode == 0 and stored(folder) == rows, again.stderr

    _, space = load_experiment(config, Overrides())
    recorded = Recorded.load(tmp_path / "r.parquet")
    assert recorded.space == space and recorded.size == (64, 96)
    assert [row.name for row in recorded.rows_of("block")] == [str(subnet) for subnet in space.all_subnets()]
    held_out, others = recorded.rows_of("held-out"), recorded.rows_of("pool", "front")
    assert len(recorded.rows_of("block")) == SUBNETS and len(held_out) == AGREEMENT_MODELS
    assert len({row.name for row in (*held_out, *others)}) == len(held_out) + len(others) == NETWORKS
    nsr = Table.load(folder / "tables" / "nsr.parquet")
    assert all(row.nsr == nsr.total(Architecture.parse(row.name)) for row in (*held_out, *others))
    timed_now = (SUBNETS - TIMED) * PROFILE_ROUNDS  # 4 bits, which the loop runs for their outputs alone
    assert len(rows) == len(before) + len(others) * AGREEMENT_ROUNDS + timed_now


def test_the_recording_that_ships_is_of_table1(repository):
    recorded, space = Recorded.load(repository / "docs/results/latency-table1.parquet"), load_space("table1")
    assert recorded.space.blocks == space.blocks and recorded.space.choices == space.choices
    assert {row.name for row in recorded.rows_of("block")} == {str(subnet) for subnet in space.all_subnets()}
    assert len(recorded.rows_of("held-out")) == 100 and len(recorded.rows_of("pool", "front")) == 40


@pytest.mark.parametrize("option", ["--seeds", "--most-blocks"])
def test_a_comparison_of_nothing_is_refused(repository, capfd, option):
    command = ["lut", "latency", "compare", str(repository / "docs/results/latency-table1.parquet"), option, "0"]
    assert main(command) == 2
    assert f"{option} 0: give at least 1" in capfd.readouterr().err
