"""What measuring costs on the loopback board: milliseconds a model beyond its own run time; how busy the board is."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deploy.formats.tflite.writer import write
from hil.boards.board import Board
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.job import Job, MeasureProtocol, files_of, request_of, tasks_of
from hil.measure import measure
from hil.scripts import RUNNER, runner_archive
from hil.session import Session
from hil.store import Store
from nas.networks.blocks import SuperBlock
from nas.nsr import evaluate_all, golden_input
from nas.space import Block, SearchSpace
from tests.deploy.networks import block_data

OVERHEAD_LIMIT_MS = 10.0
BUSY_LIMIT = 0.95
SHELL_COPY_LIMIT_MS = 27.0  # 13 to 18 measured, and half of it
COPIED_MB, COPIES = 8, 5
MODELS = 500
ONE_BY_ONE = 5
PROTOCOL = MeasureProtocol(warmup_runs=5, runs=50, rounds=1)
SPACE = SearchSpace("harness", 32, 32, (Block(1, 32, 3, 3), Block(1, 32, 3, 3), Block(1, 32, 3, 3)))


def small_models(folder: Path) -> Iterator[Job]:
    """Subnets of three layers and 32 channels on 32 x 48 maps, each with its golden pair."""
    torch.set_num_threads(1)
    for block in range(1, 4):
        torch.manual_seed(block)
        data = block_data(SPACE, block, (32, 48), seed=block)
        source = folder / f"{block}.input.bin"
        source.write_bytes(golden_input(data).tobytes())
        for judged in evaluate_all(SuperBlock(SPACE, block), data, bits=8):
            name = str(judged.subnet)
            (folder / f"{name}.tflite").write_bytes(write(judged.graph))
            (folder / f"{name}.expected.bin").write_bytes(judged.golden_output.tobytes())
            yield Job(folder / f"{name}.tflite", name, source, folder / f"{name}.expected.bin")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(milliseconds beyond the models' own time, share of the wall time in which the board ran one, one by one)."""
    folder = tmp_path_factory.mktemp("harness")
    jobs = list(itertools.islice(small_models(folder), MODELS))
    with open_board(BoardConfig("loopback", "loopback")) as board, Session(board) as session:
        with Store(folder / "warm-up.sqlite") as store:
            list(measure(session, jobs[:10], PROTOCOL, store))
        with Store(folder / "store.sqlite") as store:
            start = time.perf_counter()
            done = list(measure(session, jobs, PROTOCOL, store))
            wall_ms = 1000 * (time.perf_counter() - start)
        assert len(done) == MODELS and all(m.parity and m.parity.mismatched == 0 for m in done)
        own_ms = sum(m.board_us for m in done) / 1000
        single = statistics.median(one_process_ms(session, job) for job in jobs[:ONE_BY_ONE])
    return (wall_ms - own_ms) / MODELS, own_ms / wall_ms, single


def report(benchmark, **figures) -> None:
    """The measuring itself is the fixture's; pytest-benchmark wants something to call."""
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(figures)


@pytest.mark.benchmark(group="harness")
def test_harness_overhead(benchmark, measured):
    overhead_ms, _, single_ms = measured
    report(
        benchmark,
        figure=overhead_ms,
        unit="ms/model",
        limit=OVERHEAD_LIMIT_MS,
        holds=overhead_ms <= OVERHEAD_LIMIT_MS,
        ratio=single_ms / overhead_ms,
        against="one process per model",
    )


@pytest.mark.benchmark(group="harness")
def test_board_busy(benchmark, measured):
    _, busy, _ = measured
    report(benchmark, figure=busy, unit="of the wall time", limit=BUSY_LIMIT, holds=busy >= BUSY_LIMIT)


@pytest.mark.benchmark(group="harness")
def test_copy_through_a_shell(benchmark, tmp_path):
    """What a board without an SFTP server pays for its files."""
    (tmp_path / "sent").write_bytes(os.urandom(COPIED_MB * 10**6))
    with open_board(BoardConfig("loopback", "loopback", server="asyncssh")) as board:  # no start-up file of a shell
        by_sftp_ms = copy_ms(board, tmp_path)
        board._without_sftp = True
        by_shell_ms = copy_ms(board, tmp_path)
    report(
        benchmark,
        figure=by_shell_ms,
        unit="ms/MB",
        limit=SHELL_COPY_LIMIT_MS,
        holds=by_shell_ms <= SHELL_COPY_LIMIT_MS,
        ratio=by_sftp_ms / by_shell_ms,
        against="SFTP",
    )


def copy_ms(board: Board, folder: Path) -> float:
    """Milliseconds per MB, of the median copy."""
    took_ms = []
    for _ in range(COPIES):
        start = time.perf_counter()
        board.put(folder / "sent", f"{folder}/there")
        took_ms.append(1000 * (time.perf_counter() - start))
    return statistics.median(took_ms) / COPIED_MB


def one_process_ms(session: Session, job: Job) -> float:
    """What the same job costs beyond its own time with a runner of its own, started for it over SSH."""
    config = session.board.config
    (task,) = tasks_of([job], config, "", PROTOCOL, 0)
    request = request_of(task, config, "", PROTOCOL, session.stage.stage_many(files_of(job)))
    archive = Path(job.model).with_name(RUNNER)
    archive.write_bytes(runner_archive())
    start = time.perf_counter()
    process = session.board.start(["env", "OMP_NUM_THREADS=1", config.python, session.stage.stage(archive)])
    assert json.loads(process.receive(60))["ready"]
    process.send(json.dumps(request.to_json()))
    answer = json.loads(process.receive(60))
    process.close()
    wall_ms = 1000 * (time.perf_counter() - start)
    steady_us = answer["calls"] * sum(answer["latencies_us"])
    board_us = answer["load_us"] + answer["first_us"] + answer["warmup_us"] + steady_us
    return wall_ms - board_us / 1000
